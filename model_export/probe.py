"""Running a graph that is not a package yet, while one is being made: reference outputs, roles, latency.

Devices and `verify` run packages, through `edgeloop.runtime`; what is here is authoring, like onnxruntime's quantizer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

import edgeloop.runtime  # noqa: F401  turns onnxruntime's telemetry off before it is imported
from model_export.errors import UnsupportedModelError
from model_export.graph import shape_of

Array = npt.NDArray[Any]

#: Rows a call, so that a large data file does not become one large activation.
BATCH = 256
#: Latency is the median of at most this many calls of one row, within this time.
LATENCY_CALLS, LATENCY_SECONDS = 500, 1.0


class Probe:
    """A graph in a CPU session.

    Raises:
        UnsupportedModelError: onnxruntime cannot load it.
    """

    def __init__(self, model: ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            content = model.SerializeToString()
        except ValueError as error:
            raise UnsupportedModelError(
                "the model is larger than 2 GiB", "edgeloop is made for smaller ones"
            ) from error
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UnsupportedModelError(f"onnxruntime {ort.__version__} cannot load the model: {error}") from error
        self.outputs = [value.name for value in self._session.get_outputs()]
        shapes = {value.name: shape_of(value) for value in model.graph.input}
        fixed = {shape[0] for shape in shapes.values() if shape and isinstance(shape[0], int)}
        #: Rows that the graph takes at a time where it is not free to choose.
        self.fixed_batch = next((size for size in fixed if isinstance(size, int)), None)

    def run(self, inputs: Mapping[str, Array], batch: int | None = None) -> dict[str, Array]:
        """Outputs by name for rows [N, …], computed ``batch`` rows at a time.

        Where the graph fixes the batch, last rows that do not fill one are left out.

        Raises:
            UnsupportedModelError: the graph does not run on these rows.
        """
        rows = len(next(iter(inputs.values())))
        batch = batch or self.fixed_batch or BATCH
        stop = rows - rows % self.fixed_batch if self.fixed_batch else rows
        parts = [self._call({n: a[i : i + batch] for n, a in inputs.items()}) for i in range(0, stop, batch)]
        if not parts:
            raise UnsupportedModelError(f"the model takes {self.fixed_batch} rows at a time, and there are {rows}")
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._session.run(None, dict(feed))
        except Exception as error:
            raise UnsupportedModelError(f"the model does not run on the data: {error}") from error
        return {name: _as_array(result) for name, result in zip(self.outputs, results, strict=True)}

    def median_ms(self, inputs: Mapping[str, Array]) -> float:
        """Median milliseconds of a call with one row, after a warm-up."""
        feed = {name: array[:1] for name, array in inputs.items()}
        for _ in range(3):
            self._call(feed)
        times: list[float] = []
        stop = time.perf_counter() + LATENCY_SECONDS
        while len(times) < LATENCY_CALLS and (time.perf_counter() < stop or len(times) < 3):
            start = time.perf_counter()
            self._call(feed)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3


def _as_array(result: Any) -> Array:
    """ZipMap gives a list of {class: probability}; everything else is an array."""
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return np.array([list(row.values()) for row in result], dtype=np.float32)
    return np.asarray(result)


def alike(one: Array, other: Array, rtol: float = 1e-3) -> bool:
    """Whether two results are the same up to float32's rounding, relative to the largest number in them."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(one), initial=0.0))
    return bool(np.allclose(one, other, rtol=rtol, atol=1e-5 * max(scale, 1.0)))
