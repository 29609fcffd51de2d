"""``/api/v1/thresholds``: what was fitted for channels whose policy has a target, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import NotFound
from cloud_hub.policy import TargetPolicy

if TYPE_CHECKING:
    from cloud_hub.app import Hub
    from cloud_hub.channels import Channel
    from cloud_hub.fits import Fit

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_REASON = "fitted to the validation set; the teacher large is right on 0.965 of it"


class ThresholdAnswer(BaseModel):
    """The threshold of a release on a channel."""

    channel: str = Field(examples=["stable"])
    release: str = Field(description="Digest.", examples=[_DIGEST])
    role: str = Field(description="current, candidate or previous.", examples=["current"])
    target: TargetPolicy = Field(description="What the channel's owner wants.")
    threshold: float = Field(description="That devices are told.", examples=[0.41])
    fitted: bool = Field(description="Whether it was fitted; else it is the policy's own.")
    source: str = Field(description="validation, answers or nothing: what it was fitted to.", examples=["validation"])
    share: float | None = Field(description="Of the predictions that is expected to be sent.", examples=[0.2])
    accuracy: float | None = Field(description="That is expected of what clients get.", examples=[0.962])
    teacher: str = Field(description="Whose accuracy, or whose answers, are in it.", examples=["large"])
    teacher_accuracy: float | None = Field(description="On the validation set; null: not known, and taken for 1.")
    rows: int = Field(description="That it was fitted to.", examples=[597])
    effective: float = Field(description="Rows of weight 1 that would tell as much.", examples=[597.0])
    reason: str = Field(description="What was done, and why.", examples=[_REASON])
    changed: float | None = Field(description="Unix seconds at which it was fitted; null: it was not.")
    looked: float = Field(description="Unix seconds of the last look at what is known.")
    curve: list[tuple[float, float]] = Field(description="Share and accuracy of other thresholds.")


def router(hub: Hub) -> APIRouter:
    """The address of thresholds."""
    routes = APIRouter(prefix="/thresholds", tags=["teachers"])

    @routes.get("", responses=responses(NotFound))
    def list_thresholds(
        channel: Annotated[str | None, Query(description="Only of this channel.", examples=["stable"])] = None,
    ) -> list[ThresholdAnswer]:
        """Thresholds of channels whose policy has a target; a release that was not looked at yet has none."""
        wanted = hub.channels.all() if channel is None else [hub.channels.get(channel)]
        return [_answer(one, fit) for one in wanted for fit in hub.teaching.thresholds.on(one)]

    return routes


def _answer(channel: Channel, fit: Fit) -> ThresholdAnswer:
    target, candidate = channel.policy.escalation.target, None if channel.rollout is None else channel.rollout.candidate
    assert target is not None
    roles = {channel.previous: "previous", channel.current: "current", candidate: "candidate"}
    return ThresholdAnswer(
        channel=fit.channel,
        release=fit.release,
        role=roles.get(fit.release, "previous"),
        target=target,
        threshold=channel.policy.escalation.threshold if fit.threshold is None else fit.threshold,
        fitted=fit.threshold is not None,
        source=fit.source,
        share=fit.share,
        accuracy=fit.accuracy,
        teacher=fit.teacher,
        teacher_accuracy=fit.teacher_accuracy,
        rows=fit.rows,
        effective=fit.effective,
        reason=fit.reason,
        changed=None if fit.threshold is None else fit.fitted,
        looked=fit.looked,
        curve=list(fit.curve),
    )
