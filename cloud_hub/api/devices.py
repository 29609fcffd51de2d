"""``/api/v1/devices``: what each device last said of itself, and what was counted for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.devices import Device
from cloud_hub.errors import BadRequest, NotFound
from edgeloop.protocol import Desired, ProtocolError

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class Update(BaseModel):
    """Where the update machine of the device stands."""

    state: str = Field(
        description="A state of the update table; one that is new to the hub is kept.", examples=["rolled_back"]
    )
    reason: str = Field(description="Why, as a sentence.", examples=["golden outputs differ by 0.4 (tolerance 0.001)"])
    release: str | None = Field(description="The release that the state is about.", examples=[_DIGEST])
    attempt: int = Field(default=0, description="How many times it was tried.")
    rollout: str | None = Field(default=None, description="The rollout that offered it.")


class DeviceAnswer(BaseModel):
    """A device."""

    device: str = Field(examples=["camera-1"])
    online: bool
    channel: str | None = Field(description="The channel that it follows.", examples=["stable"])
    release: str | None = Field(description="Its committed release.", examples=[_DIGEST])
    previous: str | None = Field(default=None, description="The release that it keeps for going back.")
    update: Update | None
    variant: str = Field(default="", examples=["cpu-int8"])
    provider: str = Field(default="", description="Really used.", examples=["CPUExecutionProvider"])
    placement: dict[str, int] = Field(default_factory=dict, description="Provider → nodes that run there.")
    health: dict[str, Any] = Field(default_factory=dict)
    unclean_restarts: int = Field(default=0, description="Starts after a kill; each lost one checkpoint at most.")
    ledger: dict[str, Any] = Field(default_factory=dict, description="The device's own totals of its closed windows.")
    alarms: list[dict[str, Any]] = Field(
        default_factory=list, description="Drifts that the device sees in its own windows, by its own clock."
    )
    clock_skew_s: float | None = Field(description="Its clock minus the hub's, seconds.", examples=[-0.02])
    agent_version: str = Field(default="", examples=["0.1.0"])
    first_seen: float = Field(description="Unix seconds.")
    last_seen: float = Field(description="Unix seconds.")
    totals: dict[str, Any] = Field(description="What the hub has counted for it.")
    desired: dict[str, Any] = Field(default_factory=dict, description="What the hub wants of it.")


class DesiredBody(BaseModel):
    """What the hub wants of a device."""

    channel: str | None = Field(default=None, description="Channel to follow; null: the one of its own settings.")
    pin: str | None = Field(default=None, description="Digest of the release to stay on, or null.")
    policy: dict[str, Any] = Field(default_factory=dict, description="Settings that the hub may steer.")


def answer(device: Device) -> DeviceAnswer:
    """A device as JSON: the reported document, flattened, and what the hub knows besides."""
    own = ("previous", "variant", "provider", "placement", "health", "unclean_restarts", "ledger", "alarms")
    return DeviceAnswer(
        device=device.device,
        online=device.online,
        channel=device.channel,
        release=device.release,
        update=device.reported.get("update"),
        clock_skew_s=device.clock_skew_s,
        agent_version=str(device.presence.get("agent_version", "")),
        first_seen=device.first_seen,
        last_seen=device.last_seen,
        totals=dict(device.totals),
        desired=dict(device.desired),
        **{name: device.reported[name] for name in own if name in device.reported},
    )


def router(hub: Hub) -> APIRouter:
    """The addresses of devices."""
    routes = APIRouter(prefix="/devices", tags=["devices"])

    @routes.get("")
    def list_devices(
        channel: Annotated[str | None, Query(description="Only devices that follow it.")] = None,
    ) -> list[DeviceAnswer]:
        """All devices by name."""
        return [answer(device) for device in hub.devices.all(channel)]

    @routes.get("/{device}", responses=responses(NotFound))
    def get_device(device: str) -> DeviceAnswer:
        """One device."""
        return answer(hub.devices.get(device))

    @routes.put("/{device}/desired", responses=responses(BadRequest))
    def put_desired(device: str, body: DesiredBody) -> DesiredBody:
        """Say what the hub wants of a device; it may be one that has not been seen yet."""
        try:
            desired = Desired.from_wire(body.model_dump())
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        hub.devices.set_desired(device, desired)
        return body

    return routes
