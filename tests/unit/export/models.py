"""Small ONNX models that the export tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: list[Any],
    outputs: dict[str, list[Any]],
    tensors: dict[str, Any],
    *,
    batch: Any = "N",
    opset: int = 17,
    kinds: dict[str, int] | None = None,
    width: int = 4,
    domains: tuple[str, ...] = (),
) -> ModelProto:
    """A model with the input ``x`` float32 [batch, width]."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [batch, width])],
        [helper.make_tensor_value_info(n, (kinds or {}).get(n, FLOAT), s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def rows(count: int = 40, width: int = 4) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Input rows, the same at every call."""
    return np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)


def weight(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights, the same at every call."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def two_layers(batch: Any = "N", *, last: str = "Softmax") -> ModelProto:
    """MatMul + Add → Relu → MatMul + Add → ``last``: 4 → 6 → 3."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["c"]),
        helper.make_node("Add", ["c", "b2"], ["d"]),
        helper.make_node(last, ["d"], ["scores"]),
    ]
    tensors = {"w1": weight(4, 6), "b1": weight(6), "w2": weight(6, 3, seed=2), "b2": weight(1, 3, seed=3)}
    return model(nodes, {"scores": [batch, 3]}, tensors, batch=batch)
