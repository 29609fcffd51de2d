"""Finding a classifier's last linear layer, and exposing what goes into it.

From the scores, upwards: past operators that leave the order of columns alone (Softmax, Identity, …) to a Gemm, or a
MatMul with or without Add. What it finds becomes one Gemm with the initializers ``head.weight`` and ``head.bias``,
whose input is the output ``features``. A release that changes only the head then changes only these two files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from model_export.graphs.graph import (
    Array,
    array_of,
    attribute,
    free_name,
    producer,
    prune,
    rename_tensor,
    set_array,
    tensor_names,
)

WEIGHT, BIAS, FEATURES, NODE = "head.weight", "head.bias", "features", "head"
#: Operators between the head and the scores. Normalizer and Cast only follow a Softmax in what is exported in practice.
_PASSED = ("Identity", "Softmax", "LogSoftmax", "Cast", "Normalizer")


@dataclass(frozen=True)
class Head:
    """Where the head is.

    Attributes:
        features: name of the output that carries its input, float32 [N, F].
        classes: K.
        transposed: whether the weight is stored [K, F] rather than [F, K].
        activation: ``softmax``, or None where the scores are the logits themselves.
    """

    features: str
    classes: int
    width: int
    transposed: bool
    activation: str | None
    weight: str = WEIGHT
    bias: str = BIAS


@dataclass(frozen=True)
class _Linear:
    nodes: tuple[NodeProto, ...]
    source: str
    weight: Array
    bias: Array
    output: str
    transposed: bool


def expose(model: ModelProto, scores: str) -> Head | str:
    """Find the head above the output ``scores`` and expose its input, in place.

    Returns:
        The head, or a sentence that says why there is none; the model is then unchanged.
    """
    graph = model.graph
    found = _climb(graph, scores)
    if isinstance(found, str):
        return found
    linear, activation = found
    classes, width = linear.weight.shape if linear.transposed else linear.weight.shape[::-1]
    features = _output_named(graph, linear.source, width)
    _install(graph, linear, features)
    prune(model)
    return Head(features, int(classes), int(width), linear.transposed, activation)


def _climb(graph: GraphProto, scores: str) -> tuple[_Linear, str | None] | str:
    tensor, activation = scores, None
    while True:
        node = producer(graph, tensor)
        if node is None:
            return f"nothing computes {tensor}"
        if node.op_type not in _PASSED:
            break
        if node.op_type == "Softmax":
            activation = "softmax"
        tensor = node.input[0]
    linear = _linear(graph, node)
    if linear is None:
        return f"{node.op_type} computes the scores, not a linear layer with constant weights"
    if linear.weight.dtype != np.float32:
        return f"the last layer is {linear.weight.dtype}, not float32"
    return linear, activation


def _linear(graph: GraphProto, node: NodeProto) -> _Linear | None:
    if node.op_type == "Gemm":
        return _from_gemm(graph, node)
    if node.op_type == "MatMul":
        return _from_matmul(graph, node, None)
    if node.op_type == "Add":
        for tensor, other in (tuple(node.input), tuple(node.input)[::-1]):
            product, bias = producer(graph, tensor), array_of(graph, other)
            if product is not None and product.op_type == "MatMul" and bias is not None:
                return _from_matmul(graph, product, (node, bias))
    return None


def _from_gemm(graph: GraphProto, node: NodeProto) -> _Linear | None:
    weight = array_of(graph, node.input[1])
    bias = array_of(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or attribute(node, "transA", 0) or (len(node.input) > 2 and node.input[2] and bias is None):
        return None
    transposed = bool(attribute(node, "transB", 0))
    classes = weight.shape[0] if transposed else weight.shape[1]
    # alpha and beta are folded in, so that the files hold the numbers that count.
    weight = weight * weight.dtype.type(attribute(node, "alpha", 1.0))
    full = _as_bias(bias, classes, weight.dtype)
    if full is None:
        return None
    full = full * weight.dtype.type(attribute(node, "beta", 1.0))
    return _Linear((node,), node.input[0], weight, full, node.output[0], transposed)


def _from_matmul(graph: GraphProto, node: NodeProto, add: tuple[NodeProto, Array] | None) -> _Linear | None:
    weight = array_of(graph, node.input[1])
    if weight is None or weight.ndim != 2:
        return None
    bias = _as_bias(add[1] if add else None, weight.shape[1], weight.dtype)
    if bias is None:
        return None
    nodes = (node, add[0]) if add else (node,)
    return _Linear(nodes, node.input[0], weight, bias, nodes[-1].output[0], transposed=False)


def _as_bias(bias: Array | None, classes: int, dtype: np.dtype[np.generic]) -> Array | None:
    """A bias [K]; None where it does not broadcast to that."""
    if bias is None:
        return np.zeros(classes, dtype=dtype)
    flat = bias.reshape(-1)
    return np.broadcast_to(flat, (classes,)).astype(dtype) if flat.size in (1, classes) else None


def _output_named(graph: GraphProto, tensor: str, width: int) -> str:
    """Make a tensor an output, ``features`` where it has no output's name yet."""
    if any(output.name == tensor for output in graph.output):
        return tensor
    name = FEATURES if FEATURES not in tensor_names(graph) else free_name(graph, FEATURES)
    if any(value.name == tensor for value in graph.input):
        # An input cannot be an output as well.
        graph.node.insert(0, helper.make_node("Identity", [tensor], [name], name=name))
    else:
        rename_tensor(graph, tensor, name)
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))
    return name


def _install(graph: GraphProto, linear: _Linear, features: str) -> None:
    """Put one Gemm with the head's own initializers in the place of what was found."""
    for name in (WEIGHT, BIAS):
        if name in tensor_names(graph):
            # The source's own layer may be called head; its tensors make room.
            rename_tensor(graph, name, free_name(graph, f"source.{name}"))
    set_array(graph, WEIGHT, linear.weight)
    set_array(graph, BIAS, linear.bias)
    index = next(i for i, node in enumerate(graph.node) if linear.output in node.output)
    gemm = helper.make_node("Gemm", [features, WEIGHT, BIAS], [linear.output], name=NODE, transB=int(linear.transposed))
    graph.node[index].CopyFrom(gemm)
    # A MatMul whose product something else reads stays; `prune` takes it away otherwise.
