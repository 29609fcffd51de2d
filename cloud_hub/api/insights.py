"""``/api/v1/insights``: what the fleet has seen. ``/api/v1/quarantine``: what could not be counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.insights_store import Merged, class_counts

if TYPE_CHECKING:
    from cloud_hub.app import Hub

Channel = Annotated[str | None, Query(description="Only this channel.", examples=["stable"])]
ReleaseDigest = Annotated[str | None, Query(description="Only this release, by its digest.")]


class IntervalAnswer(BaseModel):
    """The merged windows of one release in one interval."""

    start: float = Field(description="Unix seconds.", examples=[1767225600.0])
    interval_s: float = Field(description="Older ones are longer.", examples=[60.0])
    release: str
    segment: str = Field(description="Empty where the traffic is not divided.")
    windows: int = Field(description="Device windows that are merged in it.", examples=[12])
    predictions: int
    errors: int
    feedback: int
    escalations: int
    classes: list[int] = Field(description="Predictions per class.")
    accuracy: float | None = Field(
        description="Share of the labelled predictions that were right; null without labels."
    )


class TotalsAnswer(BaseModel):
    """Everything that was ever counted; equal to the sum of the devices' ledgers."""

    predictions: int
    errors: int
    feedback: int
    escalations: int
    nonfinite: int
    windows: int
    correct: int = Field(description="Labels that agree with the prediction.")
    classes: list[int]
    by_release: dict[str, dict[str, Any]]


class RefusalAnswer(BaseModel):
    """A message that could not be counted."""

    device: str
    kind: str
    reason: str = Field(examples=["malformed"])
    detail: str
    received: float = Field(description="Unix seconds.")
    bytes: int = Field(description="Of the payload that is kept.")


class QuarantineAnswer(BaseModel):
    """Refused messages: how many for which reason, and the newest."""

    counts: dict[str, int]
    newest: list[RefusalAnswer]


def router(hub: Hub) -> APIRouter:
    """The addresses of insights."""
    routes = APIRouter(tags=["insights"])

    @routes.get("/insights")
    def insights(
        channel: Annotated[str, Query(examples=["stable"])],
        release: ReleaseDigest = None,
        since: Annotated[float | None, Query(description="First interval start, unix seconds.")] = None,
        until: Annotated[float | None, Query(description="Interval start that is not taken, unix seconds.")] = None,
    ) -> list[IntervalAnswer]:
        """Merged windows of a channel by interval."""
        rows = hub.insights.rows(channel, release, since, until)
        return [_interval(row) for row in rows]

    @routes.get("/insights/totals")
    def totals(channel: Channel = None, release: ReleaseDigest = None) -> TotalsAnswer:
        """Everything that was ever counted."""
        return TotalsAnswer(**hub.insights.totals(channel, release))

    @routes.get("/quarantine")
    def quarantine(device: Annotated[str | None, Query(description="Only of this device.")] = None) -> QuarantineAnswer:
        """What devices sent and the hub could not count."""
        newest = [
            RefusalAnswer(
                device=item.device,
                kind=item.kind,
                reason=item.reason,
                detail=item.detail,
                received=item.received,
                bytes=len(item.payload),
            )
            for item in hub.quarantine.newest(device)
        ]
        return QuarantineAnswer(counts=hub.quarantine.counts(), newest=newest)

    return routes


def _interval(row: Merged) -> IntervalAnswer:
    window = row.window
    confusion = np.asarray(window.arrays["confusion"])
    labelled = int(confusion.sum())
    return IntervalAnswer(
        start=row.start,
        interval_s=row.resolution_s,
        release=window.release,
        segment=window.segment,
        windows=row.merged,
        predictions=window.predictions,
        errors=window.errors,
        feedback=window.feedback,
        escalations=window.escalations,
        classes=class_counts(window),
        accuracy=int(np.trace(confusion)) / labelled if labelled else None,
    )
