"""What sources and sinks share: brokers, raw tensors, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.fields import Field
from edge_agent.flow_settings.checks import lengths

LARGEST_SIDE = 1 << 14


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
        description="Its shape; the first length may be -1: as many rows as there are.", check=lengths
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
