"""int8: static (QDQ), calibrated on data, or dynamic; with the head and all after it left in float."""

from __future__ import annotations

import io
import logging
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, helper
from onnxruntime import quantization as ortq
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quantize import update_opset_version

import edgeloop.runtime  # noqa: F401  turns onnxruntime's telemetry off before it is imported
from model_export.errors import QuantizationError
from model_export.graphs.graph import (
    Array,
    all_nodes,
    array_of,
    attribute,
    consumers,
    free_name,
    initializer,
    producer,
    prune,
    set_array,
)
from model_export.graphs.head import NODE
from model_export.graphs.inferring import inferred
from model_export.variants.recipes import Calibration, Int8Options

#: What int8 speeds up. Other operators are quantized where they lie between these, so that data stays int8.
COMPUTING = ("Conv", "Gemm", "MatMul", "ConvTranspose")
#: What dynamic int8 speeds up: convolutions become ConvInteger, which is slower than floats on every CPU seen.
DYNAMIC = ("MatMul", "Attention", "LSTM")
#: What looks rows up in a table, and which of its inputs are tables.
LOOKUPS: Mapping[str, slice] = {"Gather": slice(0, 1), "EmbedLayerNormalization": slice(2, 5)}
#: Activations that the quantizer dissolves into the range of the layer before them.
ACTIVATIONS = ("Relu", "Clip")
#: Rows a calibration step; the batch dimension is free.
CALIBRATION_BATCH = 32
_KINDS = {"u8": ortq.QuantType.QUInt8, "s8": ortq.QuantType.QInt8}
_METHODS: Mapping[Calibration, str] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


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
        if node.op_type in (*COMPUTING, *DYNAMIC) or computed.intersection(node.input):
            computed.update(node.output)
        else:
            before.add(node.name)
    return before


def left_in_float(model: ModelProto) -> set[str]:
    """Names of the nodes that no quantization touches: the head and what follows, scaling of inputs, trees."""
    trees = {node.name for node in model.graph.node if node.domain == "ai.onnx.ml"}
    return _head_and_after(model) | _before_computing(model) | trees


def ranges_of(model: ModelProto, calibration: Mapping[str, Array], method: Calibration) -> TensorsData:
    """Ranges of every activation, for `to_int8`: found once, whatever is excluded afterwards.

    Args:
        model: float32.
        calibration: rows [N, …] of each input.
        method: how a range follows from what was seen.

    Raises:
        QuantizationError: onnxruntime's calibration failed.
    """
    with tempfile.TemporaryDirectory() as folder, quiet(), _failing():
        file = Path(folder) / "float.onnx"
        # Ranges are asked for by tensor, so their shapes have to be known first.
        onnx.save(inferred(model), file)
        calibrator = ortq.create_calibrator(
            file, _qdq_operators(), str(Path(folder) / "augmented.onnx"), ortq.CalibrationMethod[_METHODS[method]]
        )
        for batch in _batches(calibration):
            # The histogram methods keep what they have not yet counted, which for all rows at once is gigabytes.
            calibrator.collect_data(_Once(batch))
        return calibrator.compute_data()


def to_int8(
    model: ModelProto,
    calibration: Mapping[str, Array] | TensorsData,
    options: Int8Options,
    excluded: Collection[str] = (),
) -> ModelProto:
    """The int8 variant of a canonical model.

    Args:
        model: float32, with its head named `NODE` where it has one.
        calibration: rows [N, …] of each input that show the ranges of the activations, or those from `ranges_of`.
            Dynamic int8 looks at none.
        options: the scheme.
        excluded: names of further nodes that stay in float.

    Raises:
        QuantizationError: onnxruntime's quantizer failed.
    """
    if options.dynamic:
        return _dynamic(model, options, excluded)
    ranges = calibration if isinstance(calibration, TensorsData) else ranges_of(model, calibration, options.calibration)
    symmetric = options.symmetric or options.scheme == "s8s8"
    activations, weights = _KINDS[options.scheme[:2]], _KINDS[options.scheme[2:]]
    with quiet(), _failing():
        quantizer = QDQQuantizer(
            update_opset_version(inferred(model), weights, activations),
            options.per_channel,
            bool(options.reduce_range),
            weights,
            activations,
            ranges,
            [],
            sorted(left_in_float(model).union(excluded)),
            _qdq_operators(),
            {"ActivationSymmetric": symmetric, "WeightSymmetric": options.scheme != "u8u8"},
        )
        quantizer.quantize_model()
        quantized: ModelProto = quantizer.model.model
    if not any(node.op_type == "QuantizeLinear" for node in all_nodes(quantized.graph)):
        raise QuantizationError("the quantizer left everything in float", "use --precision fp32")
    _read_floats(quantized, model, excluded)
    return cleaned(quantized)


def _read_floats(quantized: ModelProto, model: ModelProto, excluded: Collection[str]) -> None:
    """Let excluded nodes read what the nodes before them computed, not what was quantized for others.

    The quantizer rounds what a quantized node gives, whoever reads it: a layer that suffers from an outlier in its
    input would go on suffering. An activation between the two is computed once more.
    """
    graph = quantized.graph
    before = {name: node for node in model.graph.node for name in node.output}
    plain = {node.name: node for node in model.graph.node}
    there = {name for node in graph.node for name in node.output}
    left = {node.name for node in graph.node}

    def exact(tensor: str) -> str:
        node = before.get(tensor)
        if node is None or node.op_type not in ACTIVATIONS:
            return tensor
        copy = f"{tensor}.float"
        if copy not in there:
            there.add(copy)
            # Of a dissolved one, the layer before it has the name of what it gave.
            inputs = [exact(node.input[0]) if node.name in left else tensor, *node.input[1:]]
            graph.node.append(helper.make_node(node.op_type, inputs, [copy], f"{node.name}.float"))
            graph.node[-1].attribute.extend(node.attribute)
            for name in node.input[1:]:  # bounds of a Clip go where the quantizer dissolves it
                bound = initializer(model.graph, name)
                if bound is not None and initializer(graph, name) is None:
                    graph.initializer.append(bound)
        return copy

    for node in [node for node in graph.node if node.name in excluded and node.name in plain]:
        for i, tensor in enumerate(plain[node.name].input):
            if initializer(model.graph, tensor) is None:
                node.input[i] = exact(tensor)


def _dynamic(model: ModelProto, options: Int8Options, excluded: Collection[str]) -> ModelProto:
    model = split_gemms(model)
    kept = left_in_float(model)
    if options.embeddings:
        kept -= _lookups(model)
    kept |= set(excluded)
    if not any(node.op_type in DYNAMIC and node.name not in kept for node in model.graph.node):
        raise QuantizationError("no linear layer besides the head would run in dynamic int8", "use static int8")
    with tempfile.TemporaryDirectory() as folder, quiet(), _failing():
        target = Path(folder) / "int8.onnx"
        ortq.quantize_dynamic(
            inferred(model),
            target,
            op_types_to_quantize=[*DYNAMIC, *LOOKUPS] if options.embeddings else list(DYNAMIC),
            per_channel=options.per_channel,
            reduce_range=bool(options.reduce_range),
            weight_type=_KINDS[options.scheme[2:]],
            nodes_to_exclude=sorted(kept),
        )
        quantized = onnx.load(target)
    _restore_head(quantized, model)
    return cleaned(quantized)


def _restore_head(quantized: ModelProto, model: ModelProto) -> None:
    """Put the head's Gemm and its tensors back: onnxruntime splits every Gemm, the excluded ones too."""
    head = next((node for node in model.graph.node if node.name == NODE), None)
    last = None if head is None else producer(quantized.graph, head.output[0])
    if head is None or last is None:
        return
    last.CopyFrom(head)
    for name in head.input[1:]:
        value = array_of(model.graph, name)
        if value is not None:
            set_array(quantized.graph, name, value)


def _lookups(model: ModelProto) -> set[str]:
    """Names of the nodes that look rows up in tables of floats, such as embeddings of words."""
    floats = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return {
        node.name
        for node in model.graph.node
        if node.op_type in LOOKUPS and floats.intersection(node.input[LOOKUPS[node.op_type]])
    }


def split_gemms(model: ModelProto) -> ModelProto:
    """Every Gemm but the head as MatMul and Add, which is what dynamic int8 and MatMulNBits know."""
    model = ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    nodes = []
    for node in graph.node:
        weight = array_of(graph, node.input[1]) if node.op_type == "Gemm" and node.name != NODE else None
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and not attribute(
            node, "transA", 0
        )
        if weight is None or not plain:
            nodes.append(node)
            continue
        name = node.input[1]
        if attribute(node, "transB", 0):
            name = free_name(graph, f"{name}.T")
            set_array(graph, name, weight.T)
        bias = list(node.input[2:])
        product = free_name(graph, f"{node.output[0]}.product") if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], node.name))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], list(node.output), f"{node.name}.bias"))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    prune(model)
    return model


def cleaned(model: ModelProto) -> ModelProto:
    """In order, without what tools write about themselves, and without what no output needs."""
    with quiet():
        ONNXModel(model).topological_sort()
    for field in ("producer_name", "producer_version", "metadata_props", "doc_string"):
        model.ClearField(field)
    prune(model)
    return model


def _qdq_operators() -> list[str]:
    """What onnxruntime's quantizer knows, in an order that is the same in every process."""
    return sorted({*ortq.registry.QLinearOpsRegistry, *ortq.registry.QDQRegistry})


def _batches(rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Rows in their order, in batches of one size, which the histogram methods need."""
    count = len(next(iter(rows.values())))
    size = count // math.ceil(count / CALIBRATION_BATCH)
    for start in range(0, count - size + 1, size):
        yield {name: array[start : start + size] for name, array in rows.items()}


class _Once(ortq.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Feeds one batch."""

    def __init__(self, batch: Mapping[str, Array]) -> None:
        self._left = [batch]

    def get_next(self) -> Mapping[str, Array] | None:
        return self._left.pop() if self._left else None


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise QuantizationError(
            f"onnxruntime cannot quantize this model: {type(error).__name__}: {error}", "use --precision fp32"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Onnxruntime's tools advise and print, and set up logging when imported; stdout is for ``--json``."""
    root = logging.getLogger()
    disabled, handlers = root.manager.disable, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
