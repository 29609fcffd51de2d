"""The settings of sources and sinks: ``[[sources]]`` and ``[[sinks]]`` in the agent's TOML, one typed object a kind.

docs/reference/flows.md has a table of each, and a test compares them with these classes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from edge_agent.fields import Field, read
from edgeloop.records import dataclass

T = TypeVar("T")

#: What is edgeloop's own on a broker: a device that published there would speak as something that it is not.
RESERVED = "edgeloop/"
LARGEST_SIDE = 1 << 14
#: Endings of files that are pictures.
PICTURES = (".png", ".jpg", ".jpeg")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def _a_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("it has to be lower-case letters, digits, - and _, at most 32 of them")
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("it has to name one at least")
    return value


def _lengths(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(length < 1 for length in value[1:]) or (value and value[0] < 1 and value[0] != -1) or len(value) > 16:
        raise ValueError("lengths are 1 or more, at most 16 of them; only the first may be -1")
    return value


def _a_filter(value: str) -> str:
    levels = value.split("/")
    if any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels):
        raise ValueError("+ and # stand for whole levels")
    if "#" in levels[:-1]:
        raise ValueError("# can only be the last level")
    return _not_ours(value)


def _a_topic(value: str) -> str:
    if unknown := set(re.findall(r"\{.*?\}", value)) - {"{device}", "{source}"}:
        raise ValueError(f"{min(unknown)} is not known; {{device}} and {{source}} are")
    if "+" in value or "#" in value:
        raise ValueError("+ and # cannot be in a topic that is published to")
    return _not_ours(value)


def _not_ours(value: str) -> str:
    if not value or len(value.encode()) > 60_000 or "\0" in value:
        raise ValueError("it has to be a topic, such as home/door/picture")
    if value.startswith(RESERVED):
        raise ValueError(f"{RESERVED} is for edgeloop's own messages; take another topic")
    return value


def _a_url(value: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", value):
        raise ValueError("it has to begin with http:// or https://, and to be plain ASCII")
    return value


def _a_secret(value: str) -> str:
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not value.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("it has to be whsec_ and then 24 to 64 random bytes in base64")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name!r:.40} is no header: its name and value have to be plain ASCII on one line")
    return value


# ── what sources and sinks share ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """An MQTT broker other than the agent's own: `[sources.broker]`, `[sinks.broker]`."""

    host: str = Field(description="Address of the broker.")
    port: int = Field(default=1883, ge=1, le=65535, description="Its port; 8883 is usual with TLS.")
    username: str | None = Field(default=None, description="User name at the broker.")
    password: str | None = Field(default=None, repr=False, description="Password at the broker.")
    tls: bool = Field(default=False, description="Whether the connection is encrypted, and the broker's name checked.")
    ca_file: Path | None = Field(default=None, description="Certificates to check it with; none: the system's.")


@dataclass(frozen=True, kw_only=True)
class TensorSettings:
    """What raw bytes are: `[sources.tensor]`."""

    datatype: Literal[
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"
    ] = Field(description="Datatype of an element, as the Open Inference Protocol names it.")
    shape: tuple[int, ...] = Field(
        description="Its shape; the first length may be -1: as many rows as there are.", check=_lengths
    )


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How a picture becomes a tensor of one row: `[sources.picture]`."""

    width: int = Field(default=0, ge=0, le=LARGEST_SIDE, description="Width in pixels; 0: as it comes.")
    height: int = Field(default=0, ge=0, le=LARGEST_SIDE, description="Height in pixels; 0: as it comes.")
    resize: Literal["stretch", "crop"] = Field(
        default="stretch", description="Another aspect ratio is stretched, or its middle is taken."
    )
    colours: Literal["rgb", "bgr", "grey"] = Field(default="rgb", description="Channels and their order.")
    layout: Literal["NCHW", "NHWC", "NHW", "flat"] = Field(
        default="NCHW", description="Shape: [1, C, H, W], [1, H, W, C], [1, H, W] (grey) or [1, H x W x C]."
    )
    datatype: Literal["FP32", "FP16", "UINT8"] = Field(
        default="FP32", description="Datatype; UINT8 takes the pixels as they are, without scale, mean and std."
    )
    scale: float = Field(default=1 / 255, gt=0, description="Factor for pixels of 0 to 255.")
    mean: tuple[float, ...] = Field(default=(), description="Subtracted after scaling: one number, or one a channel.")
    std: tuple[float, ...] = Field(default=(), description="Divided by after that: one number, or one a channel.")
    max_pixels: int = Field(
        default=64_000_000, ge=1, description="Largest picture that is decoded, pixels; its header is asked first."
    )

    @property
    def channels(self) -> int:
        """Channels of the tensor."""
        return 1 if self.colours == "grey" else 3

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        if bool(self.width) != bool(self.height):
            raise ValueError("width and height go together; set both, or neither")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers and len(numbers) not in (1, self.channels):
                raise ValueError(f"{name} takes one number, or {self.channels}")
            if numbers and self.datatype == "UINT8":
                raise ValueError(f"{name} needs datatype FP32 or FP16; UINT8 takes the pixels as they are")
        if 0 in self.std:
            raise ValueError("std is divided by; 0 cannot be")
        if self.layout == "NHW" and self.colours != "grey":
            raise ValueError('layout NHW has no place for colours; set colours = "grey"')


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What every source has."""

    name: str = Field(description="Its name: lower-case letters, digits, - and _; unique among sources.", check=_a_name)
    sinks: tuple[str, ...] = Field(description="Names of the sinks that get its results.", check=_some)
    model: str | None = Field(default=None, description="Model that is asked; none: the channel's release.")
    input: str | None = Field(default=None, description="Input that gets the tensor; none: the model's first.")
    outputs: tuple[str, ...] = Field(default=(), description="Outputs that results hold; empty: the usual ones.")


@dataclass(frozen=True, kw_only=True)
class MqttSourceSettings(SourceSettings):
    """An MQTT topic: every message is an inference."""

    kind: Literal["mqtt"] = Field(description="`mqtt`")
    topic: str = Field(description="Topic filter; + and # are wildcards.", check=_a_filter)
    content: Literal["oip", "json", "raw", "picture"] = Field(
        default="oip",
        description="An inference request of the Open Inference Protocol, other JSON, a raw tensor, or a picture.",
    )
    fields: dict[str, tuple[str, ...]] | None = Field(
        default=None,
        description="For json: input → the places in the object (a.b) that make its row; none: the payload is the row.",
    )
    tensor: TensorSettings | None = Field(default=None, description="For raw: what the bytes are.")
    picture: PictureSettings = Field(default=PictureSettings(), description="For picture: how it becomes a tensor.")
    broker: BrokerSettings | None = Field(default=None, description="The broker; none: the agent's own.")
    retained: bool = Field(
        default=False, description="Whether the retained message is taken, which a broker repeats at each connect."
    )
    session_s: int = Field(
        default=86_400, ge=0, lt=1 << 32, description="Seconds that the broker keeps messages while the agent is away."
    )
    ahead: int = Field(default=16, ge=1, le=1000, description="Messages that the broker sends ahead, at most.")
    max_bytes: int = Field(default=16 << 20, ge=1024, le=255 << 20, description="Largest message, bytes.")

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        if (self.content == "raw") != (self.tensor is not None):
            raise ValueError('content = "raw" and a table tensor (datatype, shape) go together')
        if self.fields is not None and (self.content != "json" or not all(self.fields.values())):
            raise ValueError('fields needs content = "json", and one place at least for each input')


@dataclass(frozen=True, kw_only=True)
class FolderSourceSettings(SourceSettings):
    """A folder that is watched: every file is an inference."""

    kind: Literal["folder"] = Field(description="`folder`")
    path: Path = Field(description="The folder; its own folders are not entered, links are not followed.")
    patterns: tuple[str, ...] = Field(
        default=("*.png", "*.jpg", "*.jpeg", "*.npy", "*.npz", "*.raw"),
        description="Names that are taken; what a file is, its ending says.",
        check=_some,
    )
    picture: PictureSettings = Field(default=PictureSettings(), description="How a picture becomes a tensor.")
    tensor: TensorSettings | None = Field(default=None, description="What the bytes of .raw files are.")
    settle_s: float = Field(
        default=1.0,
        ge=0,
        description="Seconds for which a file's size and time have to stay the same; 0 where writers rename.",
    )
    poll_s: float = Field(default=0.5, gt=0, description="Seconds between two looks at the folder.")
    after: Literal["delete", "move", "keep"] = Field(
        default="move", description="What becomes of a file that the sinks have: it goes, to `done`, or stays."
    )
    done: Path | None = Field(default=None, description="Where such files go; none: `done` in the folder.")
    rejected: Path | None = Field(
        default=None, description="Where files go that are no input, with the reason; none: `rejected` in the folder."
    )
    keep_files: int = Field(
        default=10_000, ge=1, description="Files that `done` and `rejected` hold, each; the oldest are deleted."
    )
    max_bytes: int = Field(default=64 << 20, ge=1024, description="Largest file, bytes; also when an .npz is unpacked.")


@dataclass(frozen=True, kw_only=True)
class ReplaySourceSettings(SourceSettings):
    """A table that is replayed: every row is an inference."""

    kind: Literal["replay"] = Field(description="`replay`")
    path: Path = Field(description="A .csv file whose first line names its columns, or a .parquet file.")
    columns: dict[str, tuple[str, ...]] | None = Field(
        default=None, description="Input → the columns that make its row; none: all columns make the input."
    )
    rate_per_s: float = Field(default=0.0, ge=0, description="Rows a second; 0: as fast as they are answered.")
    repeat: Literal["once", "loop"] = Field(default="once", description="Once, over restarts too, or again and again.")
    mark_s: float = Field(default=1.0, ge=0, description="Seconds between two marks: a killed agent repeats no more.")


@dataclass(frozen=True, kw_only=True)
class CameraSourceSettings(SourceSettings):
    """A camera or a video: the newest frame is an inference, the others are dropped and counted."""

    kind: Literal["camera"] = Field(description="`camera`")
    device: str = Field(description="Number of a camera, path of a video, or address of a stream.")
    max_fps: float = Field(default=0.0, ge=0, description="Inferences a second, at most; 0: as many as there are.")
    repeat: Literal["once", "loop"] = Field(default="once", description="Whether a video begins again at its end.")
    picture: PictureSettings = Field(default=PictureSettings(), description="How a frame becomes a tensor.")


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """What every sink has."""

    name: str = Field(description="Its name: lower-case letters, digits, - and _; unique among sinks.", check=_a_name)


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

    prefix: str = Field(default="homeassistant", description="Home Assistant's discovery prefix.", check=_a_topic)
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
    topic: str = Field(description="Topic; {device} and {source} are filled in.", check=_a_topic)
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
    url: str = Field(description="Address, http or https.", check=_a_url)
    secret: str | None = Field(
        default=None,
        repr=False,
        description="Signs each request with HMAC-SHA256: whsec_ and 24 to 64 random bytes in base64.",
        check=_a_secret,
    )
    headers: dict[str, str] | None = Field(
        default=None, repr=False, description="More headers, such as Authorization.", check=_headers
    )
    timeout_s: float = Field(default=10.0, gt=0, description="Seconds that the other side may take.")


SOURCES: Mapping[str, type[SourceSettings]] = {
    "mqtt": MqttSourceSettings,
    "folder": FolderSourceSettings,
    "replay": ReplaySourceSettings,
    "camera": CameraSourceSettings,
}
SINKS: Mapping[str, type[SinkSettings]] = {
    "mqtt": MqttSinkSettings,
    "jsonl": JsonlSinkSettings,
    "webhook": WebhookSinkSettings,
}


def read_all(kinds: Mapping[str, type[T]], tables: Sequence[Any]) -> tuple[T, ...]:
    """Typed settings of ``[[sources]]`` or ``[[sinks]]``.

    Args:
        kinds: `SOURCES` or `SINKS`.
        tables: as TOML has them.

    Raises:
        ValueError: with every problem of every table; each is named by its name, or its number from 1.
    """
    found: list[T] = []
    problems: list[str] = []
    for number, table in enumerate(tables, 1):
        shown = table.get("name", number) if isinstance(table, Mapping) else number
        kind = str(table.get("kind")) if isinstance(table, Mapping) else ""
        if kind not in kinds:
            problems.append(f"{shown}: kind has to be one of {', '.join(kinds)}, not {kind!r}")
            continue
        try:
            found.append(read(kinds[kind], table))
        except ValueError as error:
            problems.append(f"{shown}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)


def library(source: SourceSettings) -> tuple[str, str] | None:
    """The module that a source cannot do without, and the extra that installs it; None: it can do without any."""
    match source:
        case CameraSourceSettings():
            return "cv2", "camera"
        case ReplaySourceSettings() if source.path.suffix.lower() == ".parquet":
            return "pyarrow", "parquet"
        case MqttSourceSettings() if source.content == "picture":
            return "PIL", "pictures"
        case FolderSourceSettings() if any(p.lower().endswith(PICTURES) for p in source.patterns):
            return "PIL", "pictures"
    return None


def check_flows(sources: Sequence[SourceSettings], sinks: Sequence[SinkSettings]) -> None:
    """Hold sources and sinks to one another.

    Raises:
        ValueError: a name is there twice, or a source names a sink that is not there; the message says which.
    """
    for what, names in (("sources", [s.name for s in sources]), ("sinks", [s.name for s in sinks])):
        if twice := _twice(names):
            raise ValueError(f"two {what} have the name {twice}; give each its own")
    known = {sink.name for sink in sinks}
    for source in sources:
        if missing := set(source.sinks) - known:
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"source {source.name} names the sink {min(missing)}, which is not there; there is {there}"
            )
        if twice := _twice(source.sinks):
            raise ValueError(f"source {source.name} names the sink {twice} twice")
    for sink in sinks:
        users = [source.name for source in sources if sink.name in source.sinks]
        sensors = isinstance(sink, MqttSinkSettings) and sink.home_assistant and "{source}" not in sink.topic
        if sensors and len(users) > 1:
            raise ValueError(
                f"sink {sink.name} announces a sensor for each of {', '.join(users)}: put {{source}} into its topic"
            )
    if twice := _twice(str(sink.path) for sink in sinks if isinstance(sink, JsonlSinkSettings)):
        raise ValueError(f"two sinks write {twice}; let one sink have several sources instead")


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
