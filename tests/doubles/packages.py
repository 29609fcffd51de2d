"""Small real packages for tests: a 64 → 16 → 10 network, built with ``onnx.helper`` alone and never trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeloop.insights import Profile
from edgeloop.package import (
    Draft,
    DraftVariant,
    HeadSpec,
    OutputSpec,
    Package,
    TensorSpec,
    revise_head,
    write_package,
)

CLASSES, FEATURES, WIDTH = 10, 16, 64


def make_model(seed: int = 0, *, head_seed: int | None = None) -> onnx.ModelProto:
    """Input ``x`` [N, 64]; outputs ``label``, ``probabilities`` [N, 10] and ``features`` [N, 16]."""
    random = np.random.default_rng(seed)
    body = {
        "body.weight": random.normal(0, 0.3, (WIDTH, FEATURES)),
        "body.bias": random.normal(0, 0.1, FEATURES),
    }
    random = np.random.default_rng((seed if head_seed is None else head_seed, 1))
    head = {"head.weight": random.normal(0, 0.7, (FEATURES, CLASSES)), "head.bias": random.normal(0, 0.1, CLASSES)}
    nodes = [
        helper.make_node("Gemm", ["x", "body.weight", "body.bias"], ["hidden"], name="body"),
        helper.make_node("Relu", ["hidden"], ["features"], name="relu"),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], name="head"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], name="argmax", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in (body | head).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def answers(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the network answers, computed with numpy: a reference that owes nothing to ONNX Runtime."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    features = np.maximum(x @ tensors["body.weight"] + tensors["body.bias"], 0)
    logits = features @ tensors["head.weight"] + tensors["head.bias"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)
    return {
        "label": probabilities.argmax(axis=1),
        "probabilities": probabilities,
        "features": features.astype(np.float32),
    }


def make_package(
    dest: Path,
    *,
    name: str = "digits",
    version: str = "1",
    seed: int = 0,
    head_seed: int | None = None,
    wrong_golden: bool = False,
    precisions: Sequence[str] = ("fp32",),
    ep: str = "CPUExecutionProvider",
    validation: bool = True,
) -> Package:
    """Write a package.

    Args:
        dest: its folder; must not exist.
        name: of the package.
        version: of the package.
        seed: of the weights; the same seed gives the same body.
        head_seed: of the head alone.
        wrong_golden: write reference outputs that no device can reproduce.
        precisions: variants; all are the same float network, since only their names matter to these tests.
        ep: execution provider that the variants are made for.
        validation: whether there is a validation set, labelled by the network itself.
    """
    model = make_model(seed, head_seed=head_seed)
    random = np.random.default_rng(5)
    x = random.random((300, WIDTH)).astype(np.float32)
    found = answers(model, x)
    golden_x = x[:16]
    golden = answers(model, golden_x)
    if wrong_golden:
        golden = {
            **golden,
            "probabilities": golden["probabilities"][::-1].copy(),
            "label": golden["label"][::-1].copy(),
        }
    device = ep.removesuffix("ExecutionProvider").lower()
    return write_package(
        dest,
        Draft(
            name=name,
            version=version,
            variants=[
                DraftVariant(f"{device}-{p}", p, model, ep, "cpu" if device == "cpu" else "gpu") for p in precisions
            ],
            labels=[str(label) for label in range(CLASSES)],
            inputs=[TensorSpec("x", "FP32", (-1, WIDTH))],
            outputs=[
                OutputSpec("label", "INT64", (-1,), "label"),
                OutputSpec("probabilities", "FP32", (-1, CLASSES), "probabilities"),
                OutputSpec("features", "FP32", (-1, FEATURES), "features"),
            ],
            golden_inputs={"x": golden_x},
            golden_outputs=dict.fromkeys(precisions, golden),
            features="features",
            head=HeadSpec("head.weight", "head.bias", "softmax", transposed=False),
            profile=Profile.fit(x, found["probabilities"], found["features"]),
            validation=({"x": x}, found["label"].astype(np.int64)) if validation else None,
            metrics={f"{device}-{p}": {"accuracy": 1.0} for p in precisions},
            lineage={"source": "tests"},
        ),
    )


def new_head(base: Package, folder: Path, version: str) -> Package:
    """A release of the same name with a head of its own: of its files only a few are new."""
    weight, bias = base.head_arrays()
    golden = base.golden().outputs
    return revise_head(
        base, folder, weight=weight, bias=bias, golden_outputs=golden, profile=base.profile(),
        metrics={"cpu-fp32": {"accuracy": float(version)}}, lineage={"parent": base.digest}, version=version,
    )  # fmt: skip


def duller(base: Package, folder: Path, noise: float) -> Package:
    """A release whose head is wrong sometimes: the base has labelled the validation set, so it shows.

    Args:
        base: the package.
        folder: of the new one; must not exist.
        noise: standard deviation of what is added to the head's weights.
    """
    weight, bias = base.head_arrays()
    weight = weight + np.random.default_rng(3).normal(0, noise, weight.shape).astype(np.float32)
    golden = {}
    for precision, before in base.golden().outputs.items():
        exp = np.exp(before["features"] @ weight.T + bias)
        probabilities = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)
        golden[precision] = {**before, "probabilities": probabilities, "label": probabilities.argmax(axis=1)}
    return revise_head(
        base, folder, weight=weight, bias=bias, golden_outputs=golden, profile=base.profile(), metrics={},
        lineage={"parent": base.digest}, version=f"1.{noise}",
    )  # fmt: skip
