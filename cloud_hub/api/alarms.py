"""``/api/v1/alarms``: what moved, where, since when, how much, how certain, and what to do about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api.aspect import MOVED, MovedAnswer
from cloud_hub.api.errors import responses
from cloud_hub.api.row_id import RowId
from cloud_hub.errors import Conflict, NotFound

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class AlarmAnswer(BaseModel):
    """A drift that was seen in several windows in a row."""

    id: int = Field(examples=[3])
    channel: str = Field(examples=["stable"])
    release: str = Field(examples=[_DIGEST])
    state: str = Field(description="open or closed.", examples=["open"])
    scope: str = Field(
        description="fleet; or devices or segments, when these moved and the fleet as a whole hardly did.",
        examples=["devices"],
    )
    devices: list[str] = Field(description="The devices that carry the drift.", examples=[["cam-3", "cam-7"]])
    segments: list[str] = Field(description="The segments that carry it.", examples=[["line-2"]])
    since: float = Field(description="Start of the first window that had moved, unix seconds.")
    raised: float = Field(description="Unix seconds.")
    seen: float = Field(description="End of the latest window that had moved, unix seconds.")
    closed: float | None = Field(description="Unix seconds.")
    closed_reason: str = Field(examples=[""])
    summary: str = Field(description="Where, and what moved most.", examples=[f"{MOVED} (against profile)"])
    effect: float = Field(description="Largest share of the mass that an aspect moved by so far.", examples=[0.64])
    certainty: float = Field(
        description="The probability with which chance alone shows less, in one comparison.", examples=[0.999998]
    )
    suggestion: str = Field(
        description="What to look at first.", examples=["the others look as ever: look at the camera of cam-3, cam-7"]
    )
    acknowledged: float | None = Field(description="When a person took note of it, unix seconds.")
    acknowledged_by: str = Field(description="Who, and what they said.", examples=["ada: cleaning the lens"])
    aspects: list[MovedAnswer] = Field(description="What had moved in the latest window.")


class AcknowledgeBody(BaseModel):
    """Who takes note."""

    by: str = Field(default="", max_length=500, description="Who, and what they say.", examples=["ada: on my way"])

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"by": "ada: cleaning the lens"}]}}


def router(hub: Hub) -> APIRouter:
    """The addresses of alarms."""
    routes = APIRouter(tags=["alarms"])
    add_routes(routes, "/alarms", hub)

    @routes.post("/alarms/{alarm}/acknowledge", responses=responses(NotFound, Conflict))
    def acknowledge(alarm: RowId, body: AcknowledgeBody | None = None) -> AlarmAnswer:
        """Take note of an alarm: it stays open until the drift is gone."""
        by = "" if body is None else body.by
        return AlarmAnswer.model_validate(hub.alarms.acknowledge(alarm, by, time.time()), from_attributes=True)

    return routes


def add_routes(routes: APIRouter, path: str, hub: Hub, *, in_schema: bool = True) -> None:
    """The addresses that read alarms, at ``path``."""

    @routes.get(path, include_in_schema=in_schema)
    def alarms(
        channel: Annotated[str | None, Query(description="Only this channel.", examples=["stable"])] = None,
        state: Annotated[Literal["open", "closed"] | None, Query(description="Only these.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[AlarmAnswer]:
        """Alarms, the newest first."""
        found = hub.alarms.newest(channel, state, limit)
        return [AlarmAnswer.model_validate(alarm, from_attributes=True) for alarm in found]

    @routes.get(f"{path}/{{alarm}}", responses=responses(NotFound), include_in_schema=in_schema)
    def alarm(alarm: RowId) -> AlarmAnswer:
        """One alarm."""
        return AlarmAnswer.model_validate(hub.alarms.get(alarm), from_attributes=True)
