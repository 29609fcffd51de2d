"""A package whose model never ends by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeloop.package import Draft, DraftVariant, OutputSpec, Package, TensorSpec, write_package


def endless_model() -> onnx.ModelProto:
    """A Loop whose condition stays true: without a deadline it runs for ever."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("still", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        "endless",
        [value("x", TensorProto.FLOAT, ["N", 2])],
        [value("y", TensorProto.FLOAT, ["N", 2])],
        [yes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def endless_package(dest: Path) -> Package:
    """Write it; input ``x`` [N, 2], output ``y`` [N, 2]."""
    x = np.zeros((2, 2), np.float32)
    return write_package(
        dest,
        Draft(
            name="endless",
            version="1",
            variants=[DraftVariant("cpu-fp32", "fp32", endless_model())],
            labels=["a", "b"],
            inputs=[TensorSpec("x", "FP32", (-1, 2))],
            outputs=[OutputSpec("y", "FP32", (-1, 2), "logits")],
            golden_inputs={"x": x},
            golden_outputs={"fp32": {"y": x}},
        ),
    )
