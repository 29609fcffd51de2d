"""The MLP 64 → 128 → 10 of the serving benchmarks, as a package: random weights, real shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeloop.insights import Profile
from edgeloop.package import Draft, DraftVariant, HeadSpec, OutputSpec, Package, TensorSpec, write_package

INPUTS, FEATURES, CLASSES = 64, 128, 10


def model(seed: int = 0, inputs: int = INPUTS) -> onnx.ModelProto:
    """Input ``x`` float32 [N, 64]; outputs ``probabilities`` [N, 10] and ``features`` [N, 128]."""
    random = np.random.default_rng(seed)
    tensors = {
        "body.weight": random.normal(0, 0.2, (inputs, FEATURES)),
        "body.bias": random.normal(0, 0.1, FEATURES),
        "head.weight": random.normal(0, 0.3, (FEATURES, CLASSES)),
        "head.bias": random.normal(0, 0.1, CLASSES),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "body.weight", "body.bias"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["features"]),
            helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def package(dest: Path, inputs: int = INPUTS) -> Package:
    """Write the package, of as many inputs; what it answers is computed with numpy."""
    made = model(inputs=inputs)
    tensors = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    x = np.random.default_rng(1).random((512, inputs), dtype=np.float32)
    features = np.maximum(x @ tensors["body.weight"] + tensors["body.bias"], 0)
    logits = features @ tensors["head.weight"] + tensors["head.bias"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)
    return write_package(
        dest,
        Draft(
            name="mlp",
            version="1",
            variants=[DraftVariant("cpu-fp32", "fp32", made, "CPUExecutionProvider", "cpu")],
            labels=[str(label) for label in range(CLASSES)],
            inputs=[TensorSpec("x", "FP32", (-1, inputs))],
            outputs=[
                OutputSpec("probabilities", "FP32", (-1, CLASSES), "probabilities"),
                OutputSpec("features", "FP32", (-1, FEATURES), "features"),
            ],
            golden_inputs={"x": x[:16]},
            golden_outputs={"fp32": {"probabilities": probabilities[:16], "features": features[:16]}},
            features="features",
            head=HeadSpec("head.weight", "head.bias", "softmax", transposed=False),
            profile=Profile.fit(x, probabilities, features),
            validation=None,
            metrics={},
            lineage={"source": "benchmarks"},
        ),
    )
