"""The settings of sinks, one class a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.fields import Field
from edge_agent.flow_settings.checks import a_name, a_secret, a_topic, a_url, header_lines
from edge_agent.flow_settings.shared import BrokerSettings


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """What every sink has."""

    name: str = Field(description="Its name: lower-case letters, digits, - and _; unique among sinks.", check=a_name)


@dataclass(frozen=True, kw_only=True)
class SpooledSinkSettings(SinkSettings):
    """What sinks have whose other side may be away."""

    spool_bytes: int = Field(
        default=16 << 20, ge=1 << 16, description="Bytes of results that wait on the disk for the other side, at most."
    )
    when_full: Literal["wait", "drop_oldest"] = Field(
        default="wait", description="Then the sources wait, or the oldest results are dropped and counted."
    )
    retry_s: float = Field(default=60.0, gt=0, description="Longest wait between two tries, seconds; jittered.")


@dataclass(frozen=True, kw_only=True)
class HomeAssistantSettings:
    """How Home Assistant learns of the sensor by MQTT discovery: `[sinks.home_assistant]`."""

    prefix: str = Field(default="homeassistant", description="Home Assistant's discovery prefix.", check=a_topic)
    title: str | None = Field(default=None, description="Name of the sensor; none: the source's name.")
    value_template: str = Field(default="{{ value_json.state }}", description="What the sensor shows of a result.")
    unit: str | None = Field(default=None, description="Unit of measurement.")
    device_class: str | None = Field(default=None, description="Device class, such as temperature.")
    icon: str | None = Field(default=None, description="Icon, such as mdi:camera.")
    expire_after_s: int = Field(default=0, ge=0, description="Seconds after which a state is unknown; 0: never.")


@dataclass(frozen=True, kw_only=True)
class MqttSinkSettings(SpooledSinkSettings):
    """An MQTT topic: results as JSON, QoS 1."""

    kind: Literal["mqtt"] = Field(description="`mqtt`")
    topic: str = Field(description="Topic; {device} and {source} are filled in.", check=a_topic)
    retain: bool = Field(default=False, description="Whether the broker keeps the last result for new readers.")
    broker: BrokerSettings | None = Field(default=None, description="The broker; none: the agent's own.")
    home_assistant: HomeAssistantSettings | None = Field(
        default=None, description="Announce a sensor for each source; none: do not."
    )


@dataclass(frozen=True, kw_only=True)
class JsonlSinkSettings(SinkSettings):
    """A file with one JSON document a line."""

    kind: Literal["jsonl"] = Field(description="`jsonl`")
    path: Path = Field(description="The file; full ones get .1, .2 and so on after their name.")
    max_bytes: int = Field(default=16 << 20, ge=1024, description="Size at which a new file is begun, bytes.")
    keep: int = Field(default=4, ge=0, description="Full files that are kept; the oldest is deleted.")
    fsync: Literal["always", "interval", "never"] = Field(
        default="interval",
        description="When lines are forced to the disk: each before it counts as delivered, every fsync_s, or never.",
    )
    fsync_s: float = Field(default=1.0, gt=0, description="Seconds between two of them: a power cut loses no more.")


@dataclass(frozen=True, kw_only=True)
class WebhookSinkSettings(SpooledSinkSettings):
    """An address that gets every result by POST, after the Standard Webhooks specification."""

    kind: Literal["webhook"] = Field(description="`webhook`")
    url: str = Field(description="Address, http or https.", check=a_url)
    secret: str | None = Field(
        default=None,
        repr=False,
        description="Signs each request with HMAC-SHA256: whsec_ and 24 to 64 random bytes in base64.",
        check=a_secret,
    )
    headers: dict[str, str] | None = Field(
        default=None, repr=False, description="More headers, such as Authorization.", check=header_lines
    )
    timeout_s: float = Field(default=10.0, gt=0, description="Seconds that the other side may take.")


SINKS: Mapping[str, type[SinkSettings]] = {
    "mqtt": MqttSinkSettings,
    "jsonl": JsonlSinkSettings,
    "webhook": WebhookSinkSettings,
}
