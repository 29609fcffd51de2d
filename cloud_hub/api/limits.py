"""The second question, for whoever is limited to some channels and models: is what this request is about theirs?

The guard has let the role through before the body was read; here path, query and body say which channel and which
model are meant. What is not there is left to the handler, which answers 404.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from cloud_hub.access.principals import Principal
from cloud_hub.access.rights import About
from cloud_hub.api.guard import principal, right_of
from cloud_hub.errors import Forbidden, NotFound
from edgeloop.trust.names import model_of

if TYPE_CHECKING:
    from cloud_hub.app import Hub

#: Channels, and models, that something is about; None among them is what is on no channel, or of no model.
Touched = tuple[tuple[str | None, ...], tuple[str | None, ...]]


class Limits:
    """FastAPI dependency of every address: refuses what is beyond the caller's channels and models.

    Args:
        hub: knows which channel a rollout, an alarm, a run or a device is on, and which model a release is of.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

        def model(digest: str) -> Touched:
            return (), (hub.releases.get(digest).name,)

        #: What a path, a query or a body may name → what that is about.
        self._finders: dict[str, Callable[[str], Touched]] = {
            "channel": lambda channel: ((channel,), ()),
            "device": self._of_device,
            "digest": model,
            "release": model,
            "pin": model,
            "rollout": self._of_rollout,
            "alarm": lambda alarm: ((hub.alarms.get(_number(alarm)).channel,), ()),
            "run": lambda run: ((hub.training.get(_number(run)).channel,), ()),
            "sample": lambda sample: ((hub.samples.store.get(_number(sample)).channel,), ()),
            "item": self._of_item,
            "trial": self._of_trial,
            "role": lambda role: ((), (model_of(role),)),
        }

    async def __call__(self, request: Request) -> None:
        """Raise `Forbidden` where it is not theirs."""
        who, found = principal(request), right_of(request)
        if not who.limited or found is None or found.right is None:
            return
        match found.right.about:
            case About.FLEET:
                raise Forbidden("this concerns the whole fleet, and you are limited to a part of it", _own(who))
            case About.ASKED | About.NAMED as about:
                if about is About.ASKED and who.channels is not None and "channel" not in request.query_params:
                    raise Forbidden("you are limited to some channels: say which one is meant", _own(who))
                named = [*found.parameters.items(), *request.query_params.multi_items(), *await _in_body(request)]
                await run_in_threadpool(self._check, who, named)

    def _check(self, who: Principal, named: Sequence[tuple[str, Any]]) -> None:
        for name, value in named:
            if name not in self._finders or not isinstance(value, str):
                continue  # a handler takes nothing else for one of these
            channels, models = self._touched(name, value)
            for channel in channels:
                if not who.may_touch_channel(channel):
                    raise Forbidden(f"{name} {value!r:.80} is on no channel of yours", _own(who))
            for model in models:
                if not who.may_touch_model(model):
                    raise Forbidden(f"{name} {value!r:.80} is of no model of yours", _own(who))

    def _touched(self, name: str, value: str) -> Touched:
        try:
            return self._finders[name](value)
        except NotFound:
            return (), ()

    def _of_rollout(self, rollout: str) -> Touched:
        found = self._hub.rollouts.get(rollout)
        return (found.channel,), (self._hub.releases.get(found.candidate).name,)

    def _of_item(self, item: str) -> Touched:
        found = self._hub.teaching.records.get(_number(item))
        return ((), ()) if found is None else ((found.channel,), ())

    def _of_trial(self, trial: str) -> Touched:
        found = self._hub.trials.get(trial)
        return self._of_device(found.device)[0], (found.model,)

    def _of_device(self, device: str) -> Touched:
        """A device that was never seen is on no channel, so whoever is limited may not say what it should do."""
        try:
            return (self._hub.devices.get(device).channel,), ()
        except NotFound:
            return (None,), ()


async def _in_body(request: Request) -> Sequence[tuple[str, Any]]:
    """The fields of a JSON body; none where it is none, of which the handler tells."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return ()
    return tuple(body.items()) if isinstance(body, dict) else ()


def _number(text: str) -> int:
    """A number as it is usually written: a handler may read others too, such as ``+7``, and nobody needs them."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Forbidden("this is no number of one of yours", "write it in plain digits")
    return int(text)


def _own(who: Principal) -> str:
    parts = [
        f"{kind} {', '.join(sorted(names))}"
        for kind, names in (("channels", who.channels), ("models", who.models))
        if names is not None
    ]
    return f"yours: {'; '.join(parts)}"
