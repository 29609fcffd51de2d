"""``/api/v1/trials``: candidates of a model that a device measures, if its owner allows that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, Conflict, Forbidden, NotFound
from cloud_hub.trials.asking import LEAST_S, MOST_S
from cloud_hub.trials.records import Trial

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Who = Annotated[Principal, Depends(principal)]


class TrialBody(BaseModel):
    """What a device shall measure. The package's files, and its index as one, were sent before."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"device": "cam-7", "digest": _DIGEST, "calls": 200}]}
    )

    device: str
    digest: str = Field(description="Of the package's index, which is a blob; it need not be a release.")
    variants: list[str] = Field(default=[], max_length=64, description="That are measured; empty: all.")
    calls: int = Field(default=200, ge=1, le=100_000, description="Runs that are timed of each candidate, at most.")
    seconds: float = Field(default=900.0, ge=LEAST_S, le=MOST_S, description="After which nobody waits any more.")


class CancelTrialBody(BaseModel):
    """Why a trial is ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "the wrong device"}]})

    reason: str = Field(default="by hand", max_length=2000)


class TrialAnswer(BaseModel):
    """A trial."""

    id: str = Field(examples=["t-1f2e3d4c5b6a7988"])
    device: str = Field(examples=["cam-7"])
    model: str = Field(examples=["digits"])
    digest: str = Field(examples=[_DIGEST])
    state: str = Field(description="queued, asked; done, refused, expired, cancelled.", examples=["done"])
    reason: str = Field(description="Why, or what the device says.", examples=["2 of 2 candidates are good"])
    asked_by: str = Field(examples=["token:ci"])
    created: float = Field(description="Unix seconds.")
    expires: float = Field(description="Unix seconds at which nobody waits any more.")
    ended: float | None
    report: dict[str, Any] = Field(description="What the device has said last: state, reason, rows, facts; or empty.")


def router(hub: Hub) -> APIRouter:
    """The addresses of trials."""
    routes = APIRouter(prefix="/trials", tags=["trials"])

    @routes.get("")
    def list_trials(
        who: Who,
        device: Annotated[str | None, Query(description="Only of this device.", examples=["cam-7"])] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[TrialAnswer]:
        """Trials that you may see, the newest first."""
        found = [trial for trial in hub.trials.newest(device, limit) if who.may_touch_model(trial.model)]
        if who.channels is not None:
            channels = {device.device: device.channel for device in hub.devices.all()}
            found = [trial for trial in found if who.may_touch_channel(channels.get(trial.device))]
        return [_answer(trial) for trial in found]

    @routes.post("", status_code=202, responses=responses(BadRequest, Conflict, NotFound, Forbidden))
    def ask(body: TrialBody, who: Who) -> TrialAnswer:
        """Have a device measure candidates when it is idle; it answers with a refusal where its owner allows none."""

        def check(model: str) -> None:
            if not who.may_touch_model(model):
                raise Forbidden(f"the model {model!r:.80} is not one of yours", "ask with another token")

        return _answer(
            hub.trials.ask(
                body.device,
                body.digest,
                variants=body.variants,
                calls=body.calls,
                seconds=body.seconds,
                check=check,
            )
        )

    @routes.get("/{trial}", responses=responses(NotFound))
    def get_trial(trial: str) -> TrialAnswer:
        """One trial."""
        return _answer(hub.trials.get(trial))

    @routes.post("/{trial}/cancel", responses=responses(NotFound))
    def cancel(trial: str, body: CancelTrialBody | None = None) -> TrialAnswer:
        """End a trial: the device stops measuring."""
        return _answer(hub.trials.cancel(trial, (body or CancelTrialBody()).reason))

    return routes


def _answer(trial: Trial) -> TrialAnswer:
    return TrialAnswer.model_validate(trial, from_attributes=True)
