"""``/api/v1/accuracy``: how right the answers are: expected before any label, by random audits, by chosen labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.accuracy import Stretch
from edgeloop.insights.accuracy import Share

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class ShareAnswer(BaseModel):
    """An accuracy and what it rests on."""

    value: float = Field(examples=[0.94])
    low: float = Field(description="Lower end of the interval that holds the truth 19 times in 20.", examples=[0.91])
    high: float = Field(description="Its upper end.", examples=[0.97])
    rows: int = Field(description="Answers or labels that it rests on.", examples=[1200])


class EstimateAnswer(BaseModel):
    """What is expected before any label exists."""

    accuracy: ShareAnswer | None
    trusted: bool
    reason: str = Field(description="Why it cannot be trusted; empty when it can.")
    beyond: float | None = Field(description="Share of the inputs beyond the familiar distance; 0.05 without drift.")


class AuditsAnswer(BaseModel):
    """What labels of answers say that were drawn at random."""

    accuracy: ShareAnswer | None = Field(description="Of all answers, corrected by the audits.")
    confident: ShareAnswer | None = Field(description="Of the more confident half of the bins, by audits alone.")
    drawn: int
    labelled: int


class LabelsAnswer(BaseModel):
    """What labels say that somebody chose to give."""

    plain: ShareAnswer | None
    weighted: ShareAnswer | None = Field(
        description="Each confidence as often as it was answered; null where labels leave out too many confidences."
    )


class AccuracyAnswer(BaseModel):
    """One release in one stretch of time."""

    channel: str
    release: str = Field(examples=[_DIGEST])
    segment: str
    start: float = Field(description="Unix seconds.")
    step_s: float
    predictions: int
    estimate: EstimateAnswer
    audits: AuditsAnswer
    labels: LabelsAnswer


def router(hub: Hub) -> APIRouter:
    """The address of accuracy."""
    routes = APIRouter(tags=["insights"])

    @routes.get("/accuracy")
    def accuracy(
        channel: Annotated[str, Query(examples=["stable"])],
        release: Annotated[str | None, Query(description="Only this release, by its digest.")] = None,
        since: Annotated[float | None, Query(description="First interval start, unix seconds.")] = None,
        until: Annotated[float | None, Query(description="Interval start that is not taken, unix seconds.")] = None,
        step_s: Annotated[float, Query(gt=0, description="Length of a stretch, seconds.")] = 3600.0,
        by_segment: Annotated[bool, Query(description="Whether segments are kept apart.")] = False,
    ) -> list[AccuracyAnswer]:
        """Accuracy over time: three figures, each by what it rests on."""
        found = hub.accuracy.stretches(channel, release, since, until, step_s=step_s, by_segment=by_segment)
        return [_answer(stretch, step_s) for stretch in found]

    return routes


def _answer(stretch: Stretch, step_s: float) -> AccuracyAnswer:
    estimate, audits, labels = stretch.accuracy.estimate, stretch.accuracy.audits, stretch.accuracy.labels
    return AccuracyAnswer(
        channel=stretch.channel,
        release=stretch.release,
        segment=stretch.segment,
        start=stretch.start,
        step_s=step_s,
        predictions=stretch.predictions,
        estimate=EstimateAnswer(
            accuracy=_share(estimate.expected),
            trusted=estimate.trusted,
            reason=estimate.reason,
            beyond=estimate.beyond,
        ),
        audits=AuditsAnswer(
            accuracy=_share(audits.accuracy),
            confident=_share(audits.confident),
            drawn=audits.drawn,
            labelled=audits.labelled,
        ),
        labels=LabelsAnswer(plain=_share(labels.plain), weighted=_share(labels.weighted)),
    )


def _share(share: Share | None) -> ShareAnswer | None:
    return None if share is None else ShareAnswer(**vars(share))
