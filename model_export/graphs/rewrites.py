"""Rewriting what skl2onnx emits to plain layers, so that linear and binary classifiers have a head.

``LinearClassifier`` (ai.onnx.ml) hides weight and bias in attributes, where no release could change them alone.

- ``SOFTMAX`` becomes Gemm + Softmax, ``NONE`` becomes Gemm.
- ``LOGISTIC`` with two classes becomes Gemm with half the weights + Softmax: sigmoid(z) = softmax([-z/2, z/2])₁ when
  the scores are -z and z.
- ``LOGISTIC`` with more classes (one against the rest) stays as it is: its sigmoids are no softmax, so a head fitted
  for a softmax would not fit. Such a package has no head.
- A binary MLP's Sigmoid → [1 - p, p] becomes a head with two columns in the same way, and scores [-z, z] too.
- ``Scaler`` becomes Sub and Mul, whose shapes the quantizer knows.

Whoever calls this compares the outputs before and after.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from model_export.graphs.graph import Array, array_of, attribute, consumers, free_name, producer, set_array


def rewrite(model: ModelProto) -> None:
    """Rewrite, in place, every pattern that is known."""
    for node in [n for n in model.graph.node if n.op_type == "LinearClassifier"]:
        _linear_classifier(model.graph, node)
    for node in [n for n in model.graph.node if n.op_type == "Sigmoid"]:
        _binary_sigmoid(model.graph, node)
    for node in [n for n in model.graph.node if n.op_type == "Concat"]:
        _negated_pair(model.graph, node)
    for node in [n for n in model.graph.node if n.op_type == "Scaler"]:
        _scaler(model.graph, node)


def _linear_classifier(graph: GraphProto, node: NodeProto) -> None:
    after = attribute(node, "post_transform", b"NONE").decode()
    coefficients: Array = np.array(attribute(node, "coefficients", []), dtype=np.float32)
    bias: Array = np.array(attribute(node, "intercepts", []), dtype=np.float32)
    classes = len(attribute(node, "classlabels_ints", []) or attribute(node, "classlabels_strings", []))
    if len(node.output) < 2 or classes < 2 or len(bias) != classes or len(coefficients) % classes:
        return
    if after not in ("NONE", "SOFTMAX") and not (after == "LOGISTIC" and classes == 2):
        return
    if any(consumers(graph, name) for name in node.output[:1]):
        return
    weight: Array = coefficients.reshape(classes, -1)
    if after == "LOGISTIC":
        if not np.allclose(weight[0], -weight[1]) or not np.isclose(bias[0], -bias[1]):
            return
        weight, bias = weight / 2, bias / 2
    label, scores = node.output[0], node.output[1]
    source = node.input[0]
    gemm_output = scores if after == "NONE" else free_name(graph, "scores")
    added = [_gemm(graph, source, np.ascontiguousarray(weight.T), bias, gemm_output)]
    if after != "NONE":
        added.append(helper.make_node("Softmax", [gemm_output], [scores], axis=1))
    if any(output.name == label for output in graph.output):
        added.append(helper.make_node("ArgMax", [gemm_output], [label], axis=1, keepdims=0))
    _replace(graph, [node], added)
    _index_labels(graph, label)
    _drop_l1_normalizer(graph, scores)


def _index_labels(graph: GraphProto, label: str) -> None:
    """The label output is now a class index, whatever the classes were called."""
    for output in graph.output:
        if output.name == label:
            output.CopyFrom(helper.make_tensor_value_info(label, 7, ["N"]))


def _drop_l1_normalizer(graph: GraphProto, scores: str) -> None:
    """Rows of a softmax already sum to 1."""
    for node in consumers(graph, scores):
        by_softmax = (before := producer(graph, scores)) is not None and before.op_type == "Softmax"
        if node.op_type == "Normalizer" and attribute(node, "norm", b"") == b"L1" and by_softmax:
            _replace(graph, [node], [helper.make_node("Identity", [scores], list(node.output))])


def _binary_sigmoid(graph: GraphProto, sigmoid: NodeProto) -> None:
    """Gemm or MatMul + Add with one column → Sigmoid p → Concat(1 - p, p)."""
    p = sigmoid.output[0]
    found = _two_columns(graph, p)
    linear = _one_column_layer(graph, sigmoid.input[0])
    if found is None or linear is None:
        return
    concat, subtract = found
    nodes, source, weight, bias = linear
    two = np.ascontiguousarray(np.concatenate([-weight, weight], axis=1) / 2)
    scores = free_name(graph, "scores")
    added = [
        _gemm(graph, source, two, np.concatenate([-bias, bias]) / 2, scores),
        helper.make_node("Softmax", [scores], [concat.output[0]], axis=1),
    ]
    _replace(graph, [*nodes, sigmoid, subtract, concat], added)


def _negated_pair(graph: GraphProto, concat: NodeProto) -> None:
    """Gemm or MatMul + Add with one column z → Concat(-z, z)."""
    if len(concat.input) != 2:
        return
    negation = producer(graph, concat.input[0])
    if negation is None or concat.input[1] not in negation.input:
        return
    factors = [array_of(graph, name) for name in negation.input if name != concat.input[1]]
    negated = negation.op_type == "Neg" or (
        negation.op_type == "Mul" and len(factors) == 1 and factors[0] is not None and bool((factors[0] == -1).all())
    )
    linear = _one_column_layer(graph, concat.input[1], readers=2)
    if not negated or linear is None:
        return
    nodes, source, weight, bias = linear
    two = np.concatenate([-weight, weight], axis=1)
    added = _gemm(graph, source, two, np.concatenate([-bias, bias]), concat.output[0])
    _replace(graph, [*nodes, negation, concat], [added])


def _scaler(graph: GraphProto, node: NodeProto) -> None:
    names = []
    for name in ("offset", "scale"):
        names.append(free_name(graph, f"scaler.{name}"))
        set_array(graph, names[-1], np.array(attribute(node, name, []), dtype=np.float32))
    if any(len(array) == 0 for array in (array_of(graph, names[0]), array_of(graph, names[1])) if array is not None):
        return
    centred = free_name(graph, "scaler.centred")
    added = [
        helper.make_node("Sub", [node.input[0], names[0]], [centred]),
        helper.make_node("Mul", [centred, names[1]], [node.output[0]]),
    ]
    _replace(graph, [node], added)


def _two_columns(graph: GraphProto, p: str) -> tuple[NodeProto, NodeProto] | None:
    readers = consumers(graph, p)
    concat = next((n for n in readers if n.op_type == "Concat" and len(n.input) == 2 and n.input[1] == p), None)
    subtract = next((n for n in readers if n.op_type == "Sub" and n.input[1] == p), None)
    if concat is None or subtract is None or concat.input[0] != subtract.output[0] or len(readers) != 2:
        return None
    one = array_of(graph, subtract.input[0])
    return (concat, subtract) if one is not None and one.size == 1 and float(one.reshape(())) == 1.0 else None


def _one_column_layer(
    graph: GraphProto, scores: str, readers: int = 1
) -> tuple[list[NodeProto], str, Array, Array] | None:
    add = producer(graph, scores)
    if add is None or add.op_type != "Add" or len(consumers(graph, scores)) != readers:
        return None
    product, bias = producer(graph, add.input[0]), array_of(graph, add.input[1])
    if product is None or product.op_type != "MatMul" or bias is None or bias.size != 1:
        return None
    weight = array_of(graph, product.input[1])
    if weight is None or weight.ndim != 2 or weight.shape[1] != 1 or len(consumers(graph, product.output[0])) != 1:
        return None
    return [product, add], product.input[0], weight.astype(np.float32), bias.reshape(1).astype(np.float32)


def _gemm(graph: GraphProto, source: str, weight: Array, bias: Array, output: str) -> NodeProto:
    names = []
    for name, value in (("linear.weight", weight), ("linear.bias", bias)):
        names.append(free_name(graph, name))
        set_array(graph, names[-1], value.astype(np.float32))
    return helper.make_node("Gemm", [source, *names], [output])


def _replace(graph: GraphProto, old: list[NodeProto], new: list[NodeProto]) -> None:
    """Put new nodes where the last of the old ones was; a tensor's producer stays before its readers."""
    gone = {tuple(node.output) for node in old}
    last = max(i for i, node in enumerate(graph.node) if tuple(node.output) in gone)
    before = [node for node in graph.node[: last + 1] if tuple(node.output) not in gone]
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in (*before, *new, *graph.node[last + 1 :])]
    del graph.node[:]
    graph.node.extend(nodes)
