"""``/api/v1/lineage``: where a release or a prediction comes from, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, Forbidden, NotFound
from cloud_hub.lineage import plain

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Who = Annotated[Principal, Depends(principal)]


class ReleaseInChain(BaseModel):
    """A release; ``GET /api/v1/releases/{digest}`` tells more."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["1.2"])
    parent: str | None = Field(description="Digest of the release that it was made from.")
    source: str = Field(description="published, or retrained for the hub's own.", examples=["retrained"])
    created: float = Field(description="Unix seconds.")
    size: int = Field(description="Bytes of all its files.")
    published_by: str = Field(description="As the audit log names them.", examples=["token:ci"])


class SignedAnswer(BaseModel):
    """Who answers for a release to devices."""

    path: str = Field(description="In the fleet's signed metadata.", examples=["retrained/digits/1/28000000"])
    keys: list[str] = Field(description="Ids of the keys that have signed the role which names it.")


class MadeAnswer(BaseModel):
    """What the provenance says; ``GET /api/v1/releases/{digest}/attestations/provenance`` is the whole of it."""

    builder: str = Field(examples=["cloud-hub"])
    keys: list[str] = Field(description="Ids of the keys that have signed it.")
    materials: dict[str, str] = Field(description="What it was made of → its SHA-256.")


class AssignedAnswer(BaseModel):
    """The release became current on a channel."""

    channel: str = Field(examples=["stable"])
    at: float = Field(description="Unix seconds.")
    who: str = Field(examples=["hub:hub"])
    entry: int = Field(description="Number of the entry in the audit log.", examples=[41])


class LinkAnswer(BaseModel):
    """A release in the chain, and how it came to be and to spread."""

    release: ReleaseInChain
    signed: SignedAnswer | None = Field(description="Null: by nobody, or no longer.")
    made: MadeAnswer | None = Field(description="Null: nobody has said.")
    run: dict[str, Any] | None = Field(
        description="The training run that made it, as ``GET /api/v1/retraining/{run}`` tells it: cause, data, verdict."
    )
    alarm: dict[str, Any] | None = Field(
        description="The drift alarm that the run answers, as ``GET /api/v1/alarms/{alarm}`` tells it."
    )
    rollouts: list[dict[str, Any]] = Field(description="Its rollouts, oldest first, with approvals and every decision.")
    assigned: list[AssignedAnswer] = Field(description="When it became current on a channel, oldest first.")


class SightingAnswer(BaseModel):
    """A record of one answer."""

    device: str = Field(examples=["camera-1"])
    channel: str = Field(examples=["stable"])
    release: str = Field(examples=[_DIGEST])
    index: int = Field(description="Row in the request.")
    at: float = Field(description="Unix seconds at which the hub got to know of it.")
    record: str = Field(examples=["escalation"])
    facts: dict[str, Any] = Field(description="What else is known.")


class PredictionAnswer(BaseModel):
    """A prediction, as far as the hub knows of it."""

    id: str = Field(examples=["a1b2c3d4e5f6-17"])
    sightings: list[SightingAnswer]
    unknown: list[str]


class UseAnswer(BaseModel):
    """A channel that has the release now."""

    channel: str = Field(examples=["stable"])
    role: str = Field(description="current, candidate or previous.", examples=["current"])


class LineageAnswer(BaseModel):
    """The chain: the release, its base, and so on to the first one; and what was made of it."""

    asked: str = Field(examples=[_DIGEST])
    prediction: PredictionAnswer | None
    chain: list[LinkAnswer]
    successors: list[ReleaseInChain] = Field(description="Made from it, and from those, nearest first.")
    uses: list[UseAnswer]
    devices: int = Field(description="Devices that reported last that they run it.")
    unknown: list[str] = Field(description="What this hub cannot know, and who may.")


def router(hub: Hub) -> APIRouter:
    """The address of lineages."""
    routes = APIRouter(prefix="/lineage", tags=["lineage"])

    @routes.get("/{reference}", responses=responses(NotFound, BadRequest, Forbidden))
    def lineage(
        reference: str,
        who: Who,
        device: Annotated[str | None, Query(description="That gave the prediction.", examples=["camera-1"])] = None,
    ) -> LineageAnswer:
        """The chain of a release (its digest, or 8 digits of it or more) or of a prediction (its id)."""
        return LineageAnswer.model_validate(_theirs(plain(hub.lineages.of(reference, device)), who))

    return routes


def _theirs(found: dict[str, Any], who: Principal) -> dict[str, Any]:
    """What somebody who is limited to some channels or models may see of it."""
    if not who.limited:
        return found
    for link in found["chain"]:
        if not who.may_touch_model(link["release"]["name"]):
            raise Forbidden("this is of no model of yours", "ask whoever owns the model")
        for name in ("rollouts", "assigned"):
            link[name] = [each for each in link[name] if who.may_touch_channel(each["channel"])]
        if link["run"] is not None and not who.may_touch_channel(link["run"]["channel"]):
            link["run"] = link["alarm"] = None
    seen = [] if found["prediction"] is None else found["prediction"]["sightings"]
    if not all(who.may_touch_channel(each["channel"]) for each in seen):
        raise Forbidden("this prediction was made on no channel of yours", "ask whoever owns the channel")
    found["uses"] = [use for use in found["uses"] if who.may_touch_channel(use["channel"])]
    found["successors"] = [each for each in found["successors"] if who.may_touch_model(each["name"])]
    if who.channels is not None:  # how many devices there are beyond theirs is not theirs to know
        found["devices"] = 0
    return found
