"""Which node's rounding makes the accuracy fall.

Two measurements. **Error**: how far a node's output in int8 is from that in fp32, when everything before it is exact.
All nodes are measured in one pass: the int8 graph is laid beside the float one, and each of its layers is fed with the
exact tensors, rounded, instead of with what int8 layers before it made of them. **Accuracy without**: of the int8 model
with that node left in float; for the nodes with the largest errors, since each costs a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from model_export.graphs.graph import Array, consumers, initializer, producer
from model_export.graphs.probe import Probe
from model_export.variants.quantize import cleaned

#: Before every name of the float graph, when it lies beside the int8 one.
EXACT = "exact/"
#: What onnxruntime's quantizer adds to a tensor that is an output of the graph.
_SUFFIX = "_QuantizeLinear_Input"
#: Rows a pass, and of all: an error is a mean over thousands of numbers in each.
ROWS, MOST_ROWS = 16, 128


@dataclass(frozen=True)
class Sensitivity:
    """Of one node.

    Attributes:
        node: its name, as recipes exclude it.
        op: its operator.
        error: relative error of its output in int8, all before it exact: the root of the mean squares.
        accuracy_without: of the int8 model with this node left in float; None where it was not measured.
    """

    node: str
    op: str
    error: float
    accuracy_without: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the tuning file."""
        return asdict(self)


def node_errors(model: ModelProto, int8: ModelProto, rows: Mapping[str, Array]) -> list[Sensitivity]:
    """The error of each quantized node, largest first.

    Args:
        model: float32.
        int8: what `model_export.variants.quantize.to_int8` made of it, static.
        rows: [N, …] of each input; the first are used.

    Raises:
        UnsupportedModelError: onnxruntime does not run the two side by side.
    """
    both, measured = _side_by_side(model, int8)
    if not measured:
        return []
    probe = Probe(both)
    errors, powers = np.zeros(len(measured)), np.zeros(len(measured))
    count = min(MOST_ROWS, len(next(iter(rows.values()))))
    for start in range(0, count, ROWS):
        found = probe.once({name: array[start : min(start + ROWS, count)] for name, array in rows.items()})
        errors += [float(found[f"error/{i}"]) for i in range(len(measured))]
        powers += [float(found[f"power/{i}"]) for i in range(len(measured))]
    told = [
        Sensitivity(node.name, node.op_type, math.sqrt(error / power) if power > 0 else 0.0)
        for node, error, power in zip(measured, errors, powers, strict=True)
    ]
    return sorted(told, key=lambda found: (-found.error, found.node))


def with_accuracy(
    found: Sequence[Sensitivity], accuracy_without: Callable[[str], float | None], most: int
) -> list[Sensitivity]:
    """The same, with the accuracy of the model without each of the worst nodes: most blamed first.

    Args:
        found: by error.
        accuracy_without: of the int8 model with a node left in float; None where it cannot be had any more.
        most: nodes that are measured.
    """
    told = [replace(one, accuracy_without=accuracy_without(one.node)) for one in found[:most]]
    told.sort(key=lambda one: (-(one.accuracy_without or 0.0), -one.error, one.node))
    return [*told, *found[most:]]


def _side_by_side(model: ModelProto, int8: ModelProto) -> tuple[ModelProto, list[NodeProto]]:
    """One graph with both, whose outputs are the squares of each node's error and of its exact output."""
    both = ModelProto.FromString(int8.SerializeToString())
    graph = both.graph
    plain = {node.name for node in model.graph.node}
    given = {value.name for value in graph.input}
    pairs = [(q, d) for q in graph.node if q.op_type == "QuantizeLinear" for d in consumers(graph, q.output[0])]
    measured: list[NodeProto] = []
    added: list[NodeProto] = []
    outputs: list[str] = []
    for quantize, dequantize in pairs:
        tensor = quantize.input[0]
        node = producer(graph, tensor)
        # Where an activation has become a part of the range, the layer before it has the name of what it gave.
        original = tensor.removesuffix(_SUFFIX)
        if node is None or node.name not in plain or producer(model.graph, original) is None:
            continue
        exact = EXACT + original
        i, rounded = len(measured), f"rounded/{len(measured)}"
        readers = consumers(graph, dequantize.output[0])
        added += [
            _like(quantize, [exact, *quantize.input[1:]], f"{rounded}/q"),
            _like(dequantize, [f"{rounded}/q", *dequantize.input[1:]], rounded),
            helper.make_node("Sub", [dequantize.output[0], exact], [f"difference/{i}"]),
            helper.make_node("ReduceSumSquare", [f"difference/{i}"], [f"error/{i}"], keepdims=0),
            helper.make_node("ReduceSumSquare", [exact], [f"power/{i}"], keepdims=0),
        ]
        for reader in readers:
            for k, name in enumerate(reader.input):
                if name == dequantize.output[0]:
                    reader.input[k] = rounded
        measured.append(node)
        outputs += [f"error/{i}", f"power/{i}"]
    graph.node.extend([*_prefixed(model, given), *added])
    graph.initializer.extend(_renamed(tensor) for tensor in model.graph.initializer)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in outputs)
    return cleaned(both), measured


def _like(node: NodeProto, inputs: Sequence[str], output: str) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.name = f"{node.name}/{output}"
    copy.input.extend(inputs)
    copy.output.append(output)
    return copy


def _prefixed(model: ModelProto, given: set[str]) -> list[NodeProto]:
    nodes = []
    for node in model.graph.node:
        copy = NodeProto.FromString(node.SerializeToString())
        copy.name = EXACT + node.name
        for names in (copy.input, copy.output):
            for i, name in enumerate(names):
                names[i] = name if not name or name in given else EXACT + name
        nodes.append(copy)
    return nodes


def _renamed(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = EXACT + tensor.name
    return copy


def computing(found: Sequence[Sensitivity], model: ModelProto) -> list[Sensitivity]:
    """Those that hold weights: leaving others in float costs conversions and gains little."""
    weighted = {n.name for n in model.graph.node if any(initializer(model.graph, name) is not None for name in n.input)}
    return [one for one in found if one.node in weighted]
