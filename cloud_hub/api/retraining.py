"""``/api/v1/retraining``: training runs, and how to start one by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from cloud_hub.api.errors import responses
from cloud_hub.api.row_id import RowId
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.training.run_records import Run

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_VERDICT: dict[str, Any] = {
    "passed": True,
    "summary": "passed (held-out error 0.0312 against 0.0721 on 150 labels, 56.7% lower, "
    "accuracy about 0.840 against 0.470; validation accuracy 0.871, before 0.965, floor 0.800)",
    "reasons": [],
    "improvement": 0.567,
    "candidate_error": 0.0312,
    "current_error": 0.0721,
    "holdout_labels": 150,
    "validation_accuracy": 0.871,
    "current_validation_accuracy": 0.965,
    "candidate_accuracy": 0.84,
    "current_accuracy": 0.47,
    "classes": {"seven": {"accuracy": 0.91, "rows": 22}},
    "segments": {"night": {"accuracy": 0.79, "rows": 61}},
    "validation_classes": {"seven": {"accuracy": 0.95, "rows": 20}},
    "latency_ms": 0.41,
    "current_latency_ms": 0.4,
    "size_bytes": 210_113,
    "current_size_bytes": 209_870,
    "validation_floor": 0.8,
    "validation_class_floor": 0.0,
    "min_improvement": 0.0,
    "class_floor": 0.0,
    "segment_floor": 0.0,
    "max_latency_ratio": 1.5,
    "max_size_ratio": 1.5,
}


class SliceAnswer(BaseModel):
    """The candidate on some of the rows."""

    accuracy: float | None
    rows: int


class VerdictAnswer(BaseModel):
    """What the gate said, with both figures; what could not be computed is null."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERDICT]})

    passed: bool
    summary: str
    reasons: list[str]
    improvement: float | None
    candidate_error: float | None = Field(description="Held-out error of the candidate.")
    current_error: float | None = Field(description="Held-out error of the current release.")
    holdout_labels: int
    validation_accuracy: float | None
    current_validation_accuracy: float | None
    candidate_accuracy: float | None = Field(description="Held-out accuracy of the candidate, approximately.")
    current_accuracy: float | None = Field(description="Held-out accuracy of the current release, approximately.")
    classes: dict[str, SliceAnswer] = Field(default={}, description="Each class of the held-out feedback.")
    segments: dict[str, SliceAnswer] = Field(default={}, description="Each segment of the held-out feedback.")
    validation_classes: dict[str, SliceAnswer] = Field(default={}, description="Each class of the validation set.")
    latency_ms: float | None = Field(default=None, description="Median time of an answer of the candidate, here.")
    current_latency_ms: float | None = Field(default=None, description="The same of the current release.")
    size_bytes: int | None = Field(default=None, description="All files of the candidate.")
    current_size_bytes: int | None = Field(default=None, description="All files of the current release.")
    validation_floor: float
    validation_class_floor: float = 0.0
    min_improvement: float
    class_floor: float = 0.0
    segment_floor: float = 0.0
    max_latency_ratio: float | None = None
    max_size_ratio: float | None = None


class RunAnswer(BaseModel):
    """A training run."""

    id: int = Field(examples=[4])
    channel: str = Field(examples=["stable"])
    state: str = Field(
        description="queued, training, evaluating; refused, released, failed, cancelled.", examples=["released"]
    )
    cause: str = Field(description="Why it was started.", examples=["drift alarm 3, 604 labels since"])
    trigger: str = Field(description="Of the policy's; empty: it was started by hand.", examples=["drift"])
    reason: str = Field(description="Why it is in its state.")
    parent: str = Field(description="Digest of the release that is retrained.", examples=[_DIGEST])
    alarm: int | None = Field(description="The drift alarm that it answers.", examples=[3])
    labels: int = Field(description="Labels that had arrived when it was started.", examples=[604])
    data: str = Field(description="SHA-256 of what it was trained on; empty before that is known.")
    attempts: int = Field(description="Times that it was begun: it may go on after the hub was stopped.", examples=[1])
    progress: float | None = Field(description="Share that is done, where it is under way and tells.", examples=[None])
    line: str = Field(description="What its trainer has said last, while it is under way.", examples=[""])
    created: float = Field(description="Unix seconds.")
    started: float | None
    ended: float | None
    release: str | None = Field(description="Digest of the release that came of it.", examples=[_DIGEST])
    rollout: str | None = Field(examples=["r7-1f2e3d4c"])
    verdict: VerdictAnswer | None
    candidate: dict[str, Any] = Field(description="What was fitted, and from what; empty before.")


class TriggerAnswer(BaseModel):
    """Whether a run would start by itself now."""

    start: bool
    reason: str = Field(description="Why, or what it waits for.", examples=["417 of 600 labels have arrived"])
    cause: str | None = Field(description="The trigger of the policy that is due.", examples=["drift"])


class LogAnswer(BaseModel):
    """What was said of a run."""

    lines: list[str] = Field(examples=[["2026-05-04T10:15:00+00:00 queued: drift alarm 3, 604 labels since"]])


class RequestBody(BaseModel):
    """A run to start by hand."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"channel": "stable", "reason": "new cameras"}]}
    )

    channel: str
    reason: str = Field(default="by hand", max_length=2000)


class CancelBody(BaseModel):
    """Why a run is ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "the wrong labels"}]})

    reason: str = Field(default="by hand", max_length=2000)


def router(hub: Hub) -> APIRouter:
    """The addresses of retraining."""
    routes = APIRouter(prefix="/retraining", tags=["retraining"])

    @routes.get("")
    def list_runs(
        channel: Annotated[str | None, Query(description="Only of this channel.", examples=["stable"])] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[RunAnswer]:
        """Runs, the newest first."""
        return [_answer(hub, run) for run in hub.training.newest(channel, limit)]

    @routes.get("/trigger", responses=responses(NotFound))
    def trigger(channel: Annotated[str, Query(examples=["stable"])]) -> TriggerAnswer:
        """What a channel waits for until a run starts by itself."""
        return TriggerAnswer.model_validate(hub.training.outlook(channel), from_attributes=True)

    @routes.get("/{run}", responses=responses(NotFound))
    def get_run(run: RowId) -> RunAnswer:
        """One run."""
        return _answer(hub, hub.training.get(run))

    @routes.get("/{run}/log", responses=responses(NotFound))
    def get_log(run: RowId, limit: Annotated[int, Query(ge=1, le=10_000)] = 200) -> LogAnswer:
        """The last lines of what the hub and the trainer have said of a run."""
        return LogAnswer(lines=hub.training.lines(run, limit))

    @routes.post("", status_code=202, responses=responses(NotFound, Conflict, BadRequest))
    def request(body: RequestBody) -> RunAnswer:
        """Start a run by hand, whatever the channel's triggers are; its gate and its rollout are the channel's."""
        return _answer(hub, hub.training.request(body.channel, body.reason))

    @routes.post("/{run}/cancel", responses=responses(NotFound, Conflict))
    def cancel(run: RowId, body: CancelBody | None = None) -> RunAnswer:
        """End a run: its trainer is told to stop, and whatever it still does leads nowhere."""
        return _answer(hub, hub.training.cancel(run, (body or CancelBody()).reason))

    return routes


def _answer(hub: Hub, run: Run) -> RunAnswer:
    doing = hub.training.doing(run.id)
    now = {"progress": None, "line": ""} if doing is None else {"progress": doing.share, "line": doing.line}
    told = {name: getattr(run, name) for name in RunAnswer.model_fields if name not in now}
    return RunAnswer.model_validate(told | now | {"verdict": run.verdict or None})
