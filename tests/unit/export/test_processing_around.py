"""What comes after a model, and a table's columns before one, in a package that is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeloop.package import Package
from edgeloop.runtime import ModelSession
from model_export import build
from model_export.data import Table
from model_export.errors import DataError, RequestError, UnsupportedModelError
from model_export.graphs.measure import softmax
from model_export.graphs.probe import Probe
from model_export.prepare import Prepared, prepare
from model_export.processing import with_output
from model_export.processing.steps import OutputSteps
from model_export.sources import open_source

COLUMNS = (
    '[[column]]\nname = "age"\nmean = 40\nstd = 10\n[[column]]\nname = "work"\ncategories = ["private", "state"]\n'
)
X = np.random.default_rng(0).normal(0, 1, (60, 3)).astype(np.float32)


def linear(last: str = "") -> onnx.ModelProto:
    """[N, 3] → logits [N, 2], with an operator behind the linear layer where one is named."""
    weight = np.array([[3, -3], [1, -1], [-1, 1]], np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z" if last else "logits"])]
    if last:
        nodes.append(helper.make_node(last, ["z"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def prepared(model: onnx.ModelProto, **given: str) -> Prepared:
    table = Table({"x": X}, (X[:, 0] < 0).astype(np.int64), "x.npz", "0" * 64)
    return prepare(open_source(model, table), table, labels=None, given=given)


def logits(model: onnx.ModelProto) -> Any:
    return Probe(model).run({"x": X})["logits"]


def test_a_temperature_goes_into_the_head_and_logits_become_probabilities() -> None:
    before = prepared(linear())
    assert before.head is not None and before.roles[before.scores] == "logits"
    after = with_output(before, OutputSteps(softmax=True, temperature=2.0))
    assert after.head is not None and after.head.activation == "softmax"
    assert after.roles["probabilities"] == "probabilities" and "logits" not in after.roles
    found = Probe(after.model).run({"x": X})[after.scores]
    np.testing.assert_allclose(found, softmax(logits(linear()) / 2), atol=1e-6)
    assert with_output(before, OutputSteps()).roles == before.roles


def test_a_temperature_without_a_head_that_is_known() -> None:
    before = prepared(linear("Elu"))
    assert before.head is None
    after = with_output(before, OutputSteps(temperature=4.0))
    np.testing.assert_allclose(Probe(after.model).run({"x": X})["logits"], logits(linear("Elu")) / 4, atol=1e-6)
    sigmoid = prepared(linear("Softmax"))
    headless = Prepared(**{**vars(sigmoid), "head": None})
    with pytest.raises(UnsupportedModelError, match="temperature"):
        with_output(headless, OutputSteps(temperature=4.0))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    chance = np.random.default_rng(3)
    lines = []
    for age, work in zip(chance.integers(20, 60, 80), chance.choice(["private", "state", "none"], 80), strict=True):
        scaled = np.array([(age - 40) / 10, work == "private", work == "state"], np.float32)
        lines.append(f"{work},{age},{int((scaled @ [3, 1, -1]) + 0.5 < 0)}")
    (folder / "data.csv").write_text("work,age,label\n" + "\n".join(lines) + "\n")
    (folder / "columns.toml").write_text(COLUMNS + "[output]\nsoftmax = true\n")
    return folder


def test_columns_are_the_inputs_of_a_package(people: Path, tmp_path: Path) -> None:
    report = build(
        linear(), tmp_path / "package", people / "data.csv", processing=people / "columns.toml", name="people",
        precision=["fp32"], reproducible=True,
    )  # fmt: skip
    assert report.metrics["cpu-fp32"].accuracy == 1.0 and report.head
    package = Package.open(tmp_path / "package")
    assert [(spec.name, spec.datatype, spec.shape) for spec in package.meta.inputs] == [
        ("age", "FP32", (-1, 1)),
        ("work", "BYTES", (-1, 1)),
    ]
    session = ModelSession.load(package, "cpu-fp32")
    rows = {"age": np.array([[55], [25]], np.float32), "work": np.array([["private"], ["other"]], object)}
    (found,) = session.run(rows, ["probabilities"])
    expected = np.array([[1.5 * 3 + 1 + 0.5], [-1.5 * 3 + 0.5]])
    np.testing.assert_allclose(found, softmax(np.hstack([expected, -expected])), atol=1e-5)


def test_processing_that_gives_what_the_model_does_not_take(people: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[column]]\nname = "town"\n')
    with pytest.raises(DataError, match="town"):
        build(linear(), tmp_path / "package", people / "data.csv", processing=tmp_path / "p.toml")
    with pytest.raises(RequestError):
        build(linear(), tmp_path / "package", people / "data.csv", processing=tmp_path / "absent.toml")
    assert not (tmp_path / "package").exists()
