"""What a variant is worth: accuracy on the validation rows, bytes, latency on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import Array


@dataclass(frozen=True)
class Metrics:
    """Of one variant.

    Attributes:
        accuracy: share of validation rows whose best class is the label.
        size_bytes: graph and tensors, as a device stores them.
        latency_ms: median of one row on this machine's CPU; None where it was not measured.
    """

    accuracy: float
    size_bytes: int
    latency_ms: float | None

    def for_package(self) -> dict[str, float | int]:
        """What the manifest carries: accuracy to 4 digits, latency on a scale of 1, 2, 5, 10.

        A release is identified by its bytes. The exact latency differs at each measurement, the coarse one seldom
        does; it is a hint for people, since devices measure for themselves.
        """
        entry: dict[str, float | int] = {"accuracy": round(self.accuracy, 4), "size_bytes": self.size_bytes}
        if self.latency_ms is not None:
            entry["latency_ms"] = coarse(self.latency_ms)
        return entry


def coarse(value: float) -> float:
    """The nearest of … 0.01, 0.02, 0.05, 0.1 … on a logarithmic scale."""
    if value <= 0:
        return 0.0
    exponent = math.floor(math.log10(value))
    steps = [round(step * 10.0**power, 9) for power in (exponent, exponent + 1) for step in (1, 2, 5)]
    return min(steps, key=lambda step: abs(math.log(step / value)) if step else math.inf)


def softmax(scores: Array) -> npt.NDArray[np.float64]:
    """Rows [N, K] of probabilities from logits."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def accuracy(scores: Array, labels: npt.NDArray[np.int64]) -> float:
    """Share of rows whose largest score [N, K] is the label's."""
    return float((scores.argmax(axis=1) == labels).mean())


def size_of(model: ModelProto) -> int:
    """Bytes of a graph and its tensors."""
    return int(model.ByteSize())


def check_finite(outputs: Mapping[str, Array]) -> None:
    """Nothing, where all outputs are numbers.

    Raises:
        UnsupportedModelError: a model gives a NaN or an infinity.
    """
    if bad := non_finite(outputs):
        raise UnsupportedModelError(
            f"output {bad[0]} has numbers that are not finite on the data",
            "check the weights, and how inputs are scaled",
        )


def non_finite(outputs: Mapping[str, Array]) -> list[str]:
    """Names of the outputs that hold a NaN or an infinity."""
    return [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
