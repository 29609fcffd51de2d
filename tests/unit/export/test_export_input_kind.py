"""What insights take the first input for: found, or declared, and kept in the package's profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import model_export
from edgeloop.package import Package
from model_export.building.profile import make_profile
from model_export.data import Table
from model_export.errors import DataError
from model_export.graphs.probe import Probe
from model_export.prepare import prepare
from model_export.sources import open_source
from tests.unit.export.models import weight

ROWS, LONGEST, TOKENS = 120, 12, 50


def classifier_of(name: str, kind: int, shape: list[Any], nodes: list[Any], tensors: dict[str, Any]) -> ModelProto:
    """A model whose ``nodes`` make ``h`` [N, 6] of the input ``name``; a head of three classes follows."""
    head = [helper.make_node("Gemm", ["h", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["p"])]
    tensors = {**tensors, "w": 3 * weight(6, 3, seed=2), "b": weight(3, seed=3)}
    graph = helper.make_graph(
        [*nodes, *head],
        "g",
        [helper.make_tensor_value_info(name, kind, ["N", *shape])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def language_model(name: str) -> ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", name], ["e"], axis=0),
        helper.make_node("ReduceMean", ["e"], ["h"], axes=[1], keepdims=0),
    ]
    return classifier_of(name, TensorProto.INT64, [LONGEST], nodes, {"table": weight(TOKENS, 6)})


def picture_model() -> ModelProto:
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "body"], ["h"]),
    ]
    return classifier_of("x", TensorProto.FLOAT, [3, 8, 9], nodes, {"body": weight(216, 6) / 5})


def build(folder: Path, model: ModelProto, name: str, inputs: np.ndarray, **more: Any) -> Package:
    np.savez(folder / "data.npz", **{name: inputs, "label": np.arange(len(inputs)) % 3})
    model_export.build(model, folder / "package", folder / "data.npz", precision=("fp32",), name="m", **more)
    return Package.open(folder / "package")


def token_rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.integers(1, TOKENS, (ROWS, LONGEST))
    return np.where(np.arange(LONGEST) < rng.integers(3, LONGEST, ROWS)[:, None], rows, 0)


@pytest.mark.parametrize(
    ("name", "declared", "kind"),
    [
        ("input_ids", None, "tokens"),
        ("x", None, "numbers"),
        ("x", "tokens", "tokens"),
        ("tokens", "numbers", "numbers"),
    ],
)
def test_tokens_are_known_by_their_name_or_declared(name: str, declared: Any, kind: str) -> None:
    table = Table({name: token_rows()}, np.arange(ROWS) % 3, "data.npz", "")
    model = language_model(name)
    prepared = prepare(open_source(model, table), table, labels=None, given={})
    outputs = Probe(prepared.model).run(prepared.rows)
    profile = make_profile(prepared, prepared.rows, outputs, prepared.truth, declared)
    assert profile.form.kind == kind
    assert (profile.schema.texts, profile.schema.inputs) == ((2, 0) if kind == "tokens" else (0, LONGEST))
    assert profile.form.pad == (0 if kind == "tokens" else -1)


def test_images_are_known_by_their_shape(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).random((ROWS, 3, 8, 9)).astype(np.float32)
    profile = build(tmp_path, picture_model(), "x", pictures).profile()
    assert profile is not None and (profile.form.kind, profile.form.channel_axis) == ("image", 1)
    assert profile.schema.images == 3 and profile.reference.arrays["images"].sum() == 3 * profile.reference.predictions


def test_what_it_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be image") as refused:
        build(tmp_path, language_model("x"), "x", token_rows(), input_kind="image")
    assert "--input-kind" in refused.value.hint
    assert not (tmp_path / "package").exists()
