"""``/api/v1/channels``: which release each stream of devices runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.channels import Channel
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.policy import ChannelPolicy

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_POLICY_EXAMPLE: JsonValue = {"policy": {"rollout": {"steps": [{"devices": 1}, {"share": 1.0}], "bake_s": 60.0}}}


class NamedRelease(BaseModel):
    """A release by digest, and what people call it."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["1.0.0"])


class RolloutAnswer(BaseModel):
    """The rollout under way."""

    id: str
    candidate: NamedRelease
    fraction: float = Field(description="Devices placed below it take the candidate.", examples=[0.1])


class ChannelAnswer(BaseModel):
    """A channel."""

    channel: str = Field(examples=["stable"])
    serial: int = Field(description="Grows with every change of the document.", examples=[3])
    current: NamedRelease | None
    previous: str | None = Field(description="Digest of the release that was current before.")
    rollout: RolloutAnswer | None
    policy: ChannelPolicy
    created: float = Field(description="Unix seconds.")
    changed: float = Field(description="Unix seconds.")


class PolicyBody(BaseModel):
    """A channel's policy; what is left out gets its default."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_POLICY_EXAMPLE]})

    policy: ChannelPolicy


class OfferBody(BaseModel):
    """A release for a channel."""

    digest: str = Field(examples=[_DIGEST])


class OfferAnswer(BaseModel):
    """What became of it: the rollout that was started, or null where it is current at once."""

    rollout: str | None
    serial: int = Field(examples=[3])


def router(hub: Hub) -> APIRouter:
    """The addresses of channels."""
    routes = APIRouter(prefix="/channels", tags=["channels"])

    def named(digest: str) -> NamedRelease:
        return NamedRelease.model_validate(hub.releases.get(digest), from_attributes=True)

    def answer(channel: Channel) -> ChannelAnswer:
        rollout = channel.rollout
        return ChannelAnswer(
            channel=channel.name,
            serial=channel.serial,
            current=None if channel.current is None else named(channel.current),
            previous=channel.previous,
            rollout=None
            if rollout is None
            else RolloutAnswer(id=rollout.id, candidate=named(rollout.candidate), fraction=rollout.fraction),
            policy=channel.policy,
            created=channel.created,
            changed=channel.changed,
        )

    @routes.get("")
    def list_channels(who: Annotated[Principal, Depends(principal)]) -> list[ChannelAnswer]:
        """All channels that you may see, by name."""
        return [answer(channel) for channel in hub.channels.all() if who.may_touch_channel(channel.name)]

    @routes.get("/{channel}", responses=responses(NotFound))
    def get_channel(channel: str) -> ChannelAnswer:
        """One channel."""
        return answer(hub.channels.get(channel))

    @routes.put("/{channel}", responses=responses(BadRequest))
    def put_channel(channel: str, body: PolicyBody) -> ChannelAnswer:
        """Set the policy of a channel, which is made where it does not exist."""
        return answer(hub.channels.set_policy(channel, body.policy))

    @routes.post("/{channel}/releases", responses=responses(NotFound, Conflict, BadRequest))
    def offer(channel: str, body: OfferBody) -> OfferAnswer:
        """Publish a release into a channel, which is made where it does not exist.

        It becomes current at once where the channel has none; else a rollout to it starts.
        """
        offered = hub.channels.offer(channel, body.digest, hub.rollouts)
        return OfferAnswer(rollout=offered.rollout, serial=offered.serial)

    return routes
