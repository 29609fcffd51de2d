"""Static int8 (QDQ), calibrated on data, with the head and all after it left in float."""

from __future__ import annotations

import io
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto, shape_inference
from onnxruntime import quantization as ortq

import edgeloop.runtime  # noqa: F401  turns onnxruntime's telemetry off before it is imported
from model_export.errors import QuantizationError
from model_export.graph import Array, all_nodes, consumers, initializer, prune
from model_export.head import NODE

Scheme = Literal["u8s8", "s8s8"]
Calibration = Literal["minmax", "entropy", "percentile"]

#: What int8 speeds up. Other operators are quantized where they lie between these, so that data stays int8.
COMPUTING = ("Conv", "Gemm", "MatMul", "ConvTranspose")
#: Rows a calibration step; the batch dimension is free.
CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Int8Options:
    """How to quantize.

    Attributes:
        scheme: activations uint8 and weights int8 (``u8s8``, fast on x86 with VNNI and on ARM), or both int8.
        calibration: how the range of an activation follows from what was seen.
        reduce_range: weights of 7 bits, for x86 without VNNI, whose 16-bit sums overflow otherwise.
    """

    scheme: Scheme = "u8s8"
    calibration: Calibration = "minmax"
    reduce_range: bool = False

    def describe(self) -> str:
        """One line for lineage."""
        return f"static QDQ {self.scheme}, {self.calibration}, per channel" + (", 7 bits" if self.reduce_range else "")


def quantizable(model: ModelProto) -> bool:
    """Whether there is anything besides the head that int8 would speed up."""
    head_side = _head_and_after(model)
    return any(
        node.op_type in COMPUTING and node.name not in head_side and _has_weight(model, node)
        for node in model.graph.node
    )


def _has_weight(model: ModelProto, node: Any) -> bool:
    return len(node.input) > 1 and initializer(model.graph, node.input[1]) is not None


def _head_and_after(model: ModelProto) -> set[str]:
    """Names of the head's node and of every node that depends on it."""
    names: set[str] = set()
    waiting = [node for node in model.graph.node if node.name == NODE]
    while waiting:
        node = waiting.pop()
        if node.name not in names:
            names.add(node.name)
            waiting += [reader for output in node.output for reader in consumers(model.graph, output)]
    return names


def _before_computing(model: ModelProto) -> set[str]:
    """Names of the nodes that no computing layer precedes: scaling and casting of the inputs stays exact."""
    computed: set[str] = set()
    before: set[str] = set()
    for node in model.graph.node:
        if node.op_type in COMPUTING or computed.intersection(node.input):
            computed.update(node.output)
        else:
            before.add(node.name)
    return before


def to_int8(model: ModelProto, calibration: Mapping[str, Array], options: Int8Options) -> ModelProto:
    """The int8 variant of a canonical model.

    Args:
        model: float32, with its head named `NODE` where it has one.
        calibration: rows [N, …] of each input that show the ranges of the activations.
        options: the scheme.

    Raises:
        QuantizationError: onnxruntime's quantizer failed.
    """
    excluded = _head_and_after(model) | _before_computing(model)
    excluded |= {node.name for node in model.graph.node if node.domain == "ai.onnx.ml"}
    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    activations = ortq.QuantType.QUInt8 if options.scheme == "u8s8" else ortq.QuantType.QInt8
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        try:
            ortq.quantize_static(
                # Ranges are asked for by tensor, so their shapes have to be known first.
                shape_inference.infer_shapes(model),
                target,
                _Reader(calibration),
                quant_format=ortq.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=options.reduce_range,
                activation_type=activations,
                weight_type=ortq.QuantType.QInt8,
                nodes_to_exclude=sorted(excluded),
                calibrate_method=ortq.CalibrationMethod[methods[options.calibration]],
                extra_options={"ActivationSymmetric": options.scheme == "s8s8", "WeightSymmetric": True},
            )
            quantized = onnx.load(target)
        except Exception as error:
            raise QuantizationError(
                f"onnxruntime cannot quantize this model: {type(error).__name__}: {error}", "use --precision fp32"
            ) from error
    if not any(node.op_type == "QuantizeLinear" for node in all_nodes(quantized.graph)):
        raise QuantizationError("the quantizer left everything in float", "use --precision fp32")
    for field in ("producer_name", "producer_version", "metadata_props", "doc_string"):
        quantized.ClearField(field)
    prune(quantized)
    return quantized


class _Reader(ortq.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Feeds calibration rows in their order, in batches of one size, which the histogram methods need."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        count = len(next(iter(rows.values())))
        size = count // math.ceil(count / CALIBRATION_BATCH)
        starts = range(0, count - size + 1, size)
        self._batches = iter([{n: a[i : i + size] for n, a in rows.items()} for i in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises pre-processing, which `canonical` has done, and prints; stdout is for ``--json``."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
