"""``/api/v1/drift``: what each release's windows look like against what is normal, and the alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import NotFound

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_MOVED = "mean: 64 % of the mass moved downward"
Channel = Annotated[str | None, Query(description="Only this channel.", examples=["stable"])]


class AspectAnswer(BaseModel):
    """One histogram of a window against the reference's."""

    name: str = Field(examples=["inputs[0]"])
    statistic: float = Field(description="G of the two histograms.", examples=[412.7])
    threshold: float = Field(
        description="What chance exceeds with the policy's alpha, all tests together.", examples=[38.1]
    )
    effect: float = Field(description="Share of the mass that moved, 0…1.", examples=[0.64])
    drifted: bool
    moved: str = Field(examples=[_MOVED])


class ComparisonAnswer(BaseModel):
    """A window against one reference."""

    drifted: bool
    reference_size: int = Field(description="Predictions in the reference.", examples=[133])
    aspects: list[AspectAnswer]


class ReportAnswer(BaseModel):
    """The latest comparison of a release's windows."""

    channel: str = Field(examples=["stable"])
    release: str = Field(examples=[_DIGEST])
    evaluated_at: float = Field(description="Unix seconds.")
    since: float = Field(description="Start of the merged windows, unix seconds.")
    until: float = Field(description="Their end, unix seconds.")
    predictions: int = Field(examples=[612])
    drifted: bool
    streak: int = Field(description="Comparisons in a row that saw drift.", examples=[2])
    learning: list[str] = Field(
        description="Aspects that the profile knows nothing about, and whose first windows are being gathered.",
        examples=[["confidence", "classes"]],
    )
    against: dict[str, ComparisonAnswer] = Field(description="By reference: profile, previous days.")


class MovedAnswer(AspectAnswer):
    """An aspect that moved, and against what."""

    against: str = Field(examples=["profile"])


class AlarmAnswer(BaseModel):
    """A drift that was seen in several windows in a row."""

    id: int = Field(examples=[3])
    channel: str = Field(examples=["stable"])
    release: str = Field(examples=[_DIGEST])
    state: str = Field(description="open or closed.", examples=["open"])
    since: float = Field(description="Start of the first window that had moved, unix seconds.")
    raised: float = Field(description="Unix seconds.")
    seen: float = Field(description="End of the latest window that had moved, unix seconds.")
    closed: float | None = Field(description="Unix seconds.")
    closed_reason: str = Field(examples=[""])
    summary: str = Field(description="What moved most.", examples=[f"{_MOVED} (against profile)"])
    effect: float = Field(description="Largest share of the mass that an aspect moved by so far.", examples=[0.64])
    aspects: list[MovedAnswer] = Field(description="What had moved in the latest window.")


def router(hub: Hub) -> APIRouter:
    """The addresses of drift."""
    routes = APIRouter(prefix="/drift", tags=["drift"])

    @routes.get("")
    def reports(channel: Channel = None) -> list[ReportAnswer]:
        """The latest comparison of each release on each channel, the newest first."""
        return [ReportAnswer.model_validate(report) for report in hub.drift.reports(channel)]

    @routes.get("/alarms")
    def alarms(
        channel: Channel = None,
        state: Annotated[Literal["open", "closed"] | None, Query(description="Only these.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[AlarmAnswer]:
        """Alarms, the newest first."""
        found = hub.alarms.newest(channel, state, limit)
        return [AlarmAnswer.model_validate(alarm, from_attributes=True) for alarm in found]

    @routes.get("/alarms/{alarm}", responses=responses(NotFound))
    def alarm(alarm: int) -> AlarmAnswer:
        """One alarm."""
        return AlarmAnswer.model_validate(hub.alarms.get(alarm), from_attributes=True)

    return routes
