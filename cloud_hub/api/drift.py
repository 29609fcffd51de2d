"""``/api/v1/drift``: what each release's windows look like against what is normal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api import alarms
from cloud_hub.api.aspect import AspectAnswer

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Channel = Annotated[str | None, Query(description="Only this channel.", examples=["stable"])]


class ComparisonAnswer(BaseModel):
    """A window against one reference."""

    drifted: bool
    outvoted: bool = Field(
        default=False, description="It is one device's voice: without its weight nothing moved, so it raises no alarm."
    )
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
    devices: list[str] = Field(default=[], description="Devices that carry a drift.", examples=[["cam-3"]])
    segments: list[str] = Field(default=[], description="Segments that carry a drift.", examples=[[]])
    against: dict[str, ComparisonAnswer] = Field(description="By reference: profile, yesterday, same hour last week.")


def router(hub: Hub) -> APIRouter:
    """The addresses of drift."""
    routes = APIRouter(prefix="/drift", tags=["drift"])

    @routes.get("")
    def reports(channel: Channel = None) -> list[ReportAnswer]:
        """The latest comparison of each release on each channel, the newest first."""
        return [ReportAnswer.model_validate(report) for report in hub.drift.reports(channel)]

    # What the alarms were called before they had an address of their own.
    alarms.add_routes(routes, "/alarms", hub, in_schema=False)
    return routes
