"""Running a graph that is not a package yet, while one is being made: reference outputs, roles, latency.

Devices and `verify` run packages, through `edgeloop.runtime`; what is here is authoring, like onnxruntime's quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from edgeloop.runtime.errors import ModelLoadError
from edgeloop.runtime.extensions import register
from edgeloop.runtime.ort import ort
from edgeloop.runtime.policy import session_options
from edgeloop.runtime.timing import Timing, interleaved
from model_export.errors import MissingLibraryError, UnsupportedModelError
from model_export.graphs.graph import needs_of, shape_of

Array = npt.NDArray[Any]

#: Rows a call, so that a large data file does not become one large activation.
BATCH = 256
#: Seconds for the latency of one model, and of a block of calls: short, since a build has to answer soon.
LATENCY_S, BLOCK_S = 1.0, 0.004


class Probe:
    """A graph in a CPU session.

    Args:
        model: the graph.
        exact: compute as the graph says, node by node, whatever kernels this processor has: what quantized kernels of
            another processor come close to.

    Raises:
        UnsupportedModelError: onnxruntime cannot load it.
        MissingLibraryError: it needs a library that is not installed.
    """

    def __init__(self, model: ModelProto, *, exact: bool = False) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = _opened(model, options)
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
            raise UnsupportedModelError(
                f"the model takes {self.fixed_batch or batch} rows at a time, and there are {rows}", "give more rows"
            )
        if flat := [name for name, array in parts[0].items() if not array.ndim]:
            raise UnsupportedModelError(
                f"output {flat[0]} is one value for all rows of a batch",
                f"if nobody reads it, --role {flat[0]}=unused; else give it a first dimension for the batch",
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def once(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name of one call with all rows; they may have any shape.

        Raises:
            UnsupportedModelError: the graph does not run on these rows.
        """
        return self._call(inputs)

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._session.run(None, dict(feed))
        except Exception as error:
            raise UnsupportedModelError(
                f"the model does not run on the data: {error}", "give rows as the model was trained with"
            ) from error
        return {name: _as_array(name, result) for name, result in zip(self.outputs, results, strict=True)}


def timed(models: Sequence[ModelProto], inputs: Mapping[str, Array]) -> list[Timing]:
    """Latency of one row, of several graphs in turn, in sessions with the options of the runtime that serves.

    Raises:
        UnsupportedModelError: one of them does not load or run.
        MissingLibraryError: one needs a library that is not installed.
    """
    row = {name: array[:1] for name, array in inputs.items()}
    calls = [_call(_opened(model, session_options("balanced", None)), row) for model in models]
    try:
        return interleaved(calls, LATENCY_S * len(calls), block_s=BLOCK_S)
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        raise UnsupportedModelError(f"the model does not run on the data: {error}") from error


def _call(session: Any, row: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: session.run(None, row)


def _opened(model: ModelProto, options: Any) -> Any:
    options.log_severity_level = 4
    try:
        register(needs_of(model), options)
    except ModelLoadError as error:
        raise MissingLibraryError(str(error)) from error
    try:
        content = model.SerializeToString()
    except ValueError as error:
        raise UnsupportedModelError("the model is larger than 2 GiB", "edgeloop is made for smaller ones") from error
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedModelError(f"onnxruntime {ort.__version__} cannot load the model: {error}") from error


def _as_array(name: str, result: Any) -> Array:
    """ZipMap gives a list of {class: probability}; everything else that is used is an array."""
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return np.array([list(row.values()) for row in result], dtype=np.float32)
    if not isinstance(result, np.ndarray | np.generic):
        kind = "sequence" if isinstance(result, list) else type(result).__name__
        raise no_tensor(name, kind)
    return np.asarray(result)


def no_tensor(name: str, kind: str) -> UnsupportedModelError:
    """The error for an output that is something else."""
    return UnsupportedModelError(
        f"output {name} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, no tensor",
        "export the tensors themselves as outputs (of these, the map of a scikit-learn ZipMap alone is known); "
        f"if nobody reads it, --role {name}=unused",
    )


def alike(one: Array, other: Array, rtol: float = 1e-3) -> bool:
    """Whether two results are the same up to float32's rounding, relative to the largest number in them."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(one), initial=0.0))
    return bool(np.allclose(one, other, rtol=rtol, atol=1e-5 * max(scale, 1.0)))
