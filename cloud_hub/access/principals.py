"""Who asks: a program with a token, a person who signed in, a device with a certificate, or nobody known.

What happens in a hub happens on somebody's behalf: :func:`acting` says on whose, wherever the code is that does it.
Outside a request that is the hub itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """What a program or a person is there for; `rights` says what each may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    APPROVER = "approver"
    ADMIN = "admin"


Kind = Literal["token", "person", "device", "local", "development", "anonymous", "hub"]


@dataclass(frozen=True)
class Principal:
    """Somebody who asks.

    Attributes:
        kind: how they are known.
        name: who, within the kind: a token's name, the subject of an identity provider, a device's name.
        roles: what they are there for; none for a device and for nobody known.
        channels: the only channels that they may touch, or None for all.
        models: the only models that they may touch, or None for all.
        display: what people call them, where that differs from the name.
    """

    kind: Kind
    name: str
    roles: frozenset[Role] = frozenset()
    channels: frozenset[str] | None = None
    models: frozenset[str] | None = None
    display: str = ""

    def __str__(self) -> str:
        """As the audit log names them."""
        return f"{self.kind}:{self.name}"

    @property
    def role(self) -> Role | None:
        """The strongest role, or None."""
        return max(self.roles, key=list(Role).index, default=None)

    @property
    def limited(self) -> bool:
        """Whether they may not touch every channel and model."""
        return self.channels is not None or self.models is not None

    def may_touch_channel(self, channel: str | None) -> bool:
        """Whether a channel is one of theirs; what is on no channel is nobody's who is limited."""
        return self.channels is None or channel in self.channels

    def may_touch_model(self, model: str | None) -> bool:
        """Whether a model is one of theirs."""
        return self.models is None or model in self.models


#: Nobody known.
ANONYMOUS = Principal("anonymous", "anonymous")
#: Whoever asks a hub that was started with ``insecure``.
DEVELOPMENT = Principal("development", "development", frozenset({Role.ADMIN}))
#: Whoever can read the data folder of a hub.
LOCAL = Principal("local", "data-folder", frozenset({Role.ADMIN}))
#: What the hub does by itself.
HUB = Principal("hub", "hub")

_acting: ContextVar[Principal] = ContextVar("acting", default=HUB)


def acting() -> Principal:
    """On whose behalf this code runs."""
    return _acting.get()


@contextmanager
def on_behalf_of(principal: Principal) -> Iterator[None]:
    """Within the block, :func:`acting` is ``principal``: also in threads that it hands work to with its context."""
    token = _acting.set(principal)
    try:
        yield
    finally:
        _acting.reset(token)


def limit_of(names: Iterable[str] | None) -> frozenset[str] | None:
    """Names as a limit: none, or an empty list, is no limit."""
    found = frozenset(names or ())
    return found or None
