"""The settings of sources, one class a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.fields import Field
from edge_agent.flow_settings.checks import a_filter, a_name, some
from edge_agent.flow_settings.shared import BrokerSettings, PictureSettings, TensorSettings

#: Endings of files that are pictures.
PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What every source has."""

    name: str = Field(description="Its name: lower-case letters, digits, - and _; unique among sources.", check=a_name)
    sinks: tuple[str, ...] = Field(description="Names of the sinks that get its results.", check=some)
    model: str | None = Field(default=None, description="Model that is asked; none: the channel's release.")
    input: str | None = Field(default=None, description="Input that gets the tensor; none: the model's first.")
    outputs: tuple[str, ...] = Field(default=(), description="Outputs that results hold; empty: the usual ones.")
    parameters: dict[str, str] | None = Field(
        default=None, description='Parameters of its requests, such as {camera = "north"}: see insights.segment_field.'
    )


@dataclass(frozen=True, kw_only=True)
class MqttSourceSettings(SourceSettings):
    """An MQTT topic: every message is an inference."""

    kind: Literal["mqtt"] = Field(description="`mqtt`")
    topic: str = Field(description="Topic filter; + and # are wildcards.", check=a_filter)
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
        check=some,
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


SOURCES: Mapping[str, type[SourceSettings]] = {
    "mqtt": MqttSourceSettings,
    "folder": FolderSourceSettings,
    "replay": ReplaySourceSettings,
    "camera": CameraSourceSettings,
}


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
