"""A conv net of two layers and a transformer of one, without PyTorch: random, with a last layer fitted to data."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_export.graphs.probe import Probe

Array = np.ndarray[Any, Any]
SIDE, CLASSES = 12, 4
TOKENS, VOCABULARY, WIDTH, HEADS = 16, 64, 32, 2


def conv_net(*, outlier: bool = False, seed: int = 0) -> ModelProto:
    """Conv → Relu → Conv → Relu → mean → Gemm → Softmax on ``image`` [N, 1, 12, 12].

    Args:
        outlier: give one channel between the convolutions, which the second hardly reads, a range 400 times as large:
            what int8 rounds all the other channels of that tensor by.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    tensors = {
        "conv1.weight": rng.normal(0, 0.5, (8, 1, 3, 3)),
        "conv1.bias": rng.normal(0, 0.1, 8),
        "conv2.weight": rng.normal(0, 0.3, (16, 8, 3, 3)),
        "conv2.bias": rng.normal(0, 0.1, 16),
        "fc.weight": rng.normal(0, 4.0, (CLASSES, 16)),
        "fc.bias": np.zeros(CLASSES),
    }
    if outlier:
        tensors["conv1.weight"][0] *= 400
        tensors["conv2.weight"][:, 0] /= 400
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], transB=1),
        helper.make_node("Softmax", ["g"], ["probabilities"], axis=1),
    ]
    return _fitted(
        _model(nodes, tensors, ("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])), {"image": images(200, 9)}
    )


def images(count: int, seed: int = 1) -> Array:
    """Rows of four kinds of pattern with noise, [N, 1, 12, 12]."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(7).normal(0, 1.5, (CLASSES, 1, SIDE, SIDE))
    return (kinds[np.arange(count) % CLASSES] + rng.normal(0, 0.3, (count, 1, SIDE, SIDE))).astype(np.float32)


def transformer(seed: int = 0) -> ModelProto:
    """Embeddings, one layer of attention as PyTorch exports it, a feed-forward with Gelu, mean, Gemm: BERT in small."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {"embeddings": rng.normal(0, 1, (VOCABULARY, WIDTH))}
    for name in "qkvo":
        tensors[f"{name}.weight"] = rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH))
        tensors[f"{name}.bias"] = rng.normal(0, 0.02, WIDTH)
    for i in "12":
        tensors[f"norm{i}.scale"], tensors[f"norm{i}.bias"] = np.ones(WIDTH), np.zeros(WIDTH)
    tensors |= {
        "up.weight": rng.normal(0, WIDTH**-0.5, (WIDTH, 4 * WIDTH)),
        "up.bias": np.zeros(4 * WIDTH),
        "down.weight": rng.normal(0, (4 * WIDTH) ** -0.5, (4 * WIDTH, WIDTH)),
        "down.bias": np.zeros(WIDTH),
        "fc.weight": rng.normal(0, 2.0, (CLASSES, WIDTH)),
        "fc.bias": np.zeros(CLASSES),
        "sqrt2": np.asarray(np.sqrt(2.0)),
        "one": np.asarray(1.0),
        "half": np.asarray(0.5),
        "scale": np.asarray(np.sqrt(WIDTH / HEADS)),
    }
    shapes = {"split": [0, 0, HEADS, WIDTH // HEADS], "joined": [0, 0, WIDTH]}
    node = helper.make_node
    nodes = [node("Gather", ["embeddings", "input_ids"], ["x"])]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["x", f"{name}.weight"], [f"{name}1"]),
            node("Add", [f"{name}.bias", f"{name}1"], [f"{name}2"]),
            node("Reshape", [f"{name}2", "split"], [f"{name}3"]),
            node("Transpose", [f"{name}3"], [f"{name}4"], perm=perm),
        ]
    nodes += [
        node("MatMul", ["q4", "k4"], ["s1"]),
        node("Div", ["s1", "scale"], ["s2"]),
        node("Softmax", ["s2"], ["s3"], axis=-1),
        node("MatMul", ["s3", "v4"], ["c1"]),
        node("Transpose", ["c1"], ["c2"], perm=[0, 2, 1, 3]),
        node("Reshape", ["c2", "joined"], ["c3"]),
        node("MatMul", ["c3", "o.weight"], ["o1"]),
        node("Add", ["o.bias", "o1"], ["o2"]),
        node("Add", ["o2", "x"], ["o3"]),
        node("LayerNormalization", ["o3", "norm1.scale", "norm1.bias"], ["n1"], axis=-1),
        node("MatMul", ["n1", "up.weight"], ["u1"]),
        node("Add", ["up.bias", "u1"], ["u2"]),
        node("Div", ["u2", "sqrt2"], ["g1"]),
        node("Erf", ["g1"], ["g2"]),
        node("Add", ["g2", "one"], ["g3"]),
        node("Mul", ["u2", "g3"], ["g4"]),
        node("Mul", ["g4", "half"], ["g5"]),
        node("MatMul", ["g5", "down.weight"], ["d1"]),
        node("Add", ["down.bias", "d1"], ["d2"]),
        node("Add", ["d2", "n1"], ["d3"]),
        node("LayerNormalization", ["d3", "norm2.scale", "norm2.bias"], ["n2"], axis=-1),
        node("ReduceMean", ["n2"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    model = _model(nodes, tensors, ("input_ids", TensorProto.INT64, ["N", TOKENS]), shapes)
    return _fitted(model, {"input_ids": sentences(200, 9)})


def classes(count: int) -> Array:
    """True classes of `images` and `sentences`, int64 [N]."""
    return np.arange(count) % CLASSES


def _fitted(model: ModelProto, rows: dict[str, Array]) -> ModelProto:
    """The model with its last layer fitted by least squares."""
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    inner = ModelProto.FromString(model.SerializeToString())
    del inner.graph.output[:]
    inner.graph.output.append(helper.make_tensor_value_info(gemm.input[0], TensorProto.FLOAT, None))
    features = Probe(inner).run(rows)[gemm.input[0]]
    given = np.hstack([features, np.ones((len(features), 1))])
    wanted = 10 * np.eye(CLASSES)[classes(len(features))]
    # A little ridge, so that no weight becomes so large that rounding decides.
    fit = np.linalg.solve(given.T @ given + 1e-2 * np.eye(given.shape[1]), given.T @ wanted).T.astype(np.float32)
    for tensor in model.graph.initializer:
        if tensor.name in gemm.input[1:]:
            value = fit[:, :-1] if tensor.name == gemm.input[1] else fit[:, -1]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    return model


def sentences(count: int, seed: int = 1) -> Array:
    """Rows of four vocabularies with strangers in between, [N, 16]."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, VOCABULARY // CLASSES, (count, TOKENS)) + (np.arange(count) % CLASSES)[:, None] * (
        VOCABULARY // CLASSES
    )
    return np.where(rng.random((count, TOKENS)) < 0.1, rng.integers(0, VOCABULARY, (count, TOKENS)), own)


def _model(
    nodes: list[Any], tensors: dict[str, Array], given: tuple[str, int, list[Any]], shapes: Any = None
) -> ModelProto:
    scores = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in tensors.items()]
        + [numpy_helper.from_array(np.asarray(a, np.int64), n) for n, a in (shapes or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
