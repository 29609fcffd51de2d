"""Networks that the benchmarks need, built with ``onnx.helper`` alone: real shapes, random weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
#: MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, first stride.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass
class _Graph:
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        values = self.random.normal(0.0, np.sqrt(2.0 / fan_in), shape).astype(np.float32)
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def zeros(self, name: str, *shape: int) -> str:
        self.initializers.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, cin: int, cout: int, kernel: int, stride: int, *, depthwise: bool = False) -> str:
        """A convolution whose batch normalisation is folded into its bias, as exporters leave it."""
        group = cin if depthwise else 1
        inputs = [
            x,
            self.weight(f"{name}.weight", cout, cin // group, kernel, kernel),
            self.zeros(f"{name}.bias", cout),
        ]
        pads = [kernel // 2] * 4
        return self.node("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=group)

    def relu6(self, x: str) -> str:
        return self.node("Clip", [x, "zero", "six"], f"{x}.relu6")


def mobilenet_v2(classes: int = 10, size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2: input ``image`` float32 [N, 3, size, size], output ``probabilities`` float32 [N, classes]."""
    graph = _Graph(np.random.default_rng(seed))
    for name, value in (("zero", 0.0), ("six", 6.0)):
        graph.initializers.append(numpy_helper.from_array(np.array(value, np.float32), name))
    x, channels = graph.relu6(graph.conv("image", "stem", 3, 32, 3, 2)), 32
    for stage, (expand, out, repeats, first_stride) in enumerate(MOBILENET_V2):
        for block in range(repeats):
            name, stride, wide = f"s{stage}b{block}", first_stride if block == 0 else 1, channels * expand
            y = graph.relu6(graph.conv(x, f"{name}.expand", channels, wide, 1, 1)) if expand > 1 else x
            y = graph.relu6(graph.conv(y, f"{name}.depth", wide, wide, 3, stride, depthwise=True))
            y = graph.conv(y, f"{name}.project", wide, out, 1, 1)
            x = graph.node("Add", [x, y], f"{name}.add") if stride == 1 and channels == out else y
            channels = out
    x = graph.relu6(graph.conv(x, "last", channels, 1280, 1, 1))
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "flat")
    x = graph.node(
        "Gemm", [x, graph.weight("fc.weight", classes, 1280), graph.zeros("fc.bias", classes)], "fc", transB=1
    )
    graph.node("Softmax", [x], "probabilities", axis=1)
    onnx_graph = helper.make_graph(
        graph.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        graph.initializers,
    )
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model
