"""``/api/v1/rollouts``: how releases spread over a channel's devices, and why they went on or back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import BadRequest, Conflict, Forbidden, NotFound
from cloud_hub.policy import Step
from cloud_hub.rollouts import Rollout

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_START: dict[str, Any] = {
    "channel": "stable",
    "digest": _DIGEST,
    "steps": [{"devices": 1}, {"share": 1.0}],
    "reason": "ticket 17",
}


class ProgressAnswer(BaseModel):
    """Where the devices that were offered the candidate stand."""

    selected: int = Field(description="Known devices placed below the fraction.", examples=[10])
    done: int = Field(description="Online, and running the candidate.", examples=[8])
    failed: int = Field(description="Rolled it back.", examples=[0])
    pending: int = Field(description="Expected to answer, and have not.", examples=[1])
    away: int = Field(description="Offline: neither waited for nor counted as failed.", examples=[1])


class DecisionAnswer(BaseModel):
    """One decision."""

    at: float = Field(description="Unix seconds.", examples=[1767225600.0])
    decision: str = Field(description="start, approve, widen, wait, finish or abort.", examples=["widen"])
    step: int = Field(description="Index of the step; -1 before the first.", examples=[0])
    fraction: float = Field(examples=[0.21])
    reason: str = Field(examples=["step 1 of 3: 1 of 10 online devices"])


class RolloutSummary(BaseModel):
    """A rollout."""

    id: str = Field(examples=["r7-1f2e3d4c"])
    channel: str = Field(examples=["stable"])
    candidate: str = Field(description="Digest of the release that is rolled out.", examples=[_DIGEST])
    current: str = Field(
        description="Digest of the release that it replaces; empty for a first one that waits for approvals.",
        examples=[_DIGEST],
    )
    state: str = Field(description="running, finished or aborted.", examples=["running"])
    step: int = Field(description="Index of the present step; -1 before the first.", examples=[0])
    steps: list[Step]
    fraction: float = Field(description="Devices placed below it take the candidate.", examples=[0.21])
    progress: ProgressAnswer
    reason: str = Field(description="Why it is where it is.", examples=["1 of 1 devices run it; watched for 60 s"])
    cause: str = Field(description="Why it was started.", examples=["by hand"])
    started_by: str = Field(description="Who started it; empty for one that is older than the audit log.")
    approvals_wanted: int = Field(description="Approvals that it needs before it begins.", examples=[0])
    started: float = Field(description="Unix seconds.")
    ended: float | None = Field(description="Unix seconds; null while it runs.")


class ApprovalAnswer(BaseModel):
    """Somebody agreed."""

    who: str = Field(examples=["person:ada"])
    at: float = Field(description="Unix seconds.", examples=[1767225600.0])
    reason: str = Field(examples=["seen on the bench"])


class RolloutAnswer(RolloutSummary):
    """A rollout with every decision."""

    approvals: list[ApprovalAnswer]
    history: list[DecisionAnswer]


class StartBody(BaseModel):
    """A rollout to start."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_START]})

    channel: str
    digest: str
    steps: tuple[Step, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description='Instead of those of the channel\'s policy; the last one has to be {"share": 1.0}.',
    )
    reason: str = Field(default="by hand", max_length=2000)


class AbortBody(BaseModel):
    """Why a rollout is ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "wrong labels"}]})

    reason: str = Field(default="by hand", max_length=2000)


class ApproveBody(BaseModel):
    """What whoever agrees has to say."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "seen on the bench"}]})

    reason: str = Field(default="", max_length=2000)


def router(hub: Hub) -> APIRouter:
    """The addresses of rollouts."""
    routes = APIRouter(prefix="/rollouts", tags=["rollouts"])

    def detail(rollout: Rollout) -> RolloutAnswer:
        history = [DecisionAnswer(**vars(entry)) for entry in hub.rollouts.history(rollout.id)]
        approvals = [ApprovalAnswer(**vars(approval)) for approval in hub.rollouts.approvals(rollout.id)]
        return RolloutAnswer(**_summary(rollout).model_dump(), approvals=approvals, history=history)

    @routes.get("")
    def list_rollouts(
        channel: Annotated[str | None, Query(description="Only of this channel.", examples=["stable"])] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[RolloutSummary]:
        """Rollouts, the newest first."""
        return [_summary(rollout) for rollout in hub.rollouts.newest(channel, limit)]

    @routes.get("/{rollout}", responses=responses(NotFound))
    def get_rollout(rollout: str) -> RolloutAnswer:
        """One rollout with every decision, its time and its reason."""
        return detail(hub.rollouts.get(rollout))

    @routes.post("", status_code=201, responses=responses(NotFound, Conflict, BadRequest))
    def start(body: StartBody) -> RolloutAnswer:
        """Start to move a channel to a release; one rollout at a time on a channel."""
        return detail(hub.rollouts.get(hub.rollouts.start(body.channel, body.digest, body.steps, body.reason)))

    @routes.post("/{rollout}/approve", responses=responses(NotFound, Conflict, Forbidden))
    def approve(rollout: str, body: ApproveBody | None = None) -> RolloutAnswer:
        """Agree to a rollout whose channel asks for approvals: with the last one it begins."""
        return detail(hub.rollouts.approve(rollout, (body or ApproveBody()).reason))

    @routes.post("/{rollout}/abort", responses=responses(NotFound, Conflict))
    def abort(rollout: str, body: AbortBody | None = None) -> RolloutAnswer:
        """End a rollout: every device goes back to the current release."""
        return detail(hub.rollouts.abort(rollout, (body or AbortBody()).reason))

    return routes


def _summary(rollout: Rollout) -> RolloutSummary:
    return RolloutSummary(
        id=rollout.id,
        channel=rollout.channel,
        candidate=rollout.candidate,
        current=rollout.current,
        state=rollout.state,
        step=rollout.step,
        steps=list(rollout.policy.steps),
        fraction=rollout.fraction,
        progress=ProgressAnswer(**vars(rollout.progress)),
        reason=rollout.reason,
        cause=rollout.cause,
        started_by=rollout.started_by,
        approvals_wanted=rollout.policy.approvals,
        started=rollout.started,
        ended=rollout.ended,
    )
