"""A model that is five times too sure: the temperature is found, put into the package, told, and fitted anew."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from edgeloop.package import Package
from edgeloop.runtime import ModelSession
from model_export import build, cli
from model_export.building.build_report import BuildReport
from model_export.building.inputs import read
from model_export.building.request import Request
from model_export.building.temperature import LEAST, fit, least_nll, nll
from model_export.data import Table
from model_export.errors import RequestError, UnsupportedModelError
from model_export.graphs.measure import softmax
from model_export.prepare import prepare
from model_export.processing.steps import OutputSteps
from model_export.report.scores import reliability
from model_export.sources import open_source
from tests.unit.export.models import model, rows, weight

ROWS, SURE = 900, 5.0
X = rows(ROWS)
TRUE = X @ weight(4, 3)
#: Drawn by the probabilities that a model of the right temperature gives.
LABELS = (softmax(TRUE).cumsum(axis=1) < np.random.default_rng(5).random((ROWS, 1))).sum(axis=1)


def too_sure(factor: float = SURE) -> onnx.ModelProto:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["scores"], axis=1)]
    return model(nodes, {"scores": ["N", 3]}, {"w": (weight(4, 3) * factor).astype(np.float32)})


def test_the_least_is_found_and_is_the_least() -> None:
    found = least_nll(TRUE * SURE, LABELS)
    assert found == pytest.approx(SURE, rel=0.15)
    assert nll(TRUE * SURE, LABELS, found) < min(nll(TRUE * SURE, LABELS, found * by) for by in (0.97, 1.03))
    assert least_nll(TRUE, TRUE.argmax(axis=1)) == pytest.approx(LEAST)  # all right: it would be as sure as can be


@pytest.fixture(scope="module", name="built")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    folder = tmp_path_factory.mktemp("tempered")
    np.savez(folder / "data.npz", x=X, label=LABELS)
    data = folder / "data.npz"
    return build(too_sure(), folder / "out", data, precision=("fp32",), fit_temperature=True, reproducible=True)


def test_a_package_says_how_often_it_is_right(built: BuildReport) -> None:
    told = built.temperature
    assert told is not None and told["temperature"] == told["fitted"] == pytest.approx(SURE, rel=0.2)
    assert told["ece_after"] < 0.06 < 0.15 < told["ece_before"] and told["nll_after"] < told["nll_before"]
    assert told["rows"] + told["judged_on"] == ROWS
    assert any(f"temperature {told['temperature']:g}, fitted on {told['rows']} rows" in note for note in built.notes)
    package = Package.open(built.path)
    assert package.meta.lineage["temperature"] == told
    assert package.meta.extra["recipe"]["processing"] == {"output": {"fit_temperature": True}}
    validation = package.validation()
    assert validation is not None
    session = ModelSession.load(package, "cpu-fp32")
    (found,) = session.run(validation[0], ["scores"])
    session.close()
    assert reliability(found.astype(np.float64), validation[1])[1] == pytest.approx(told["ece_after"], abs=1e-3)


def test_a_package_like_it_is_fitted_anew(built: BuildReport) -> None:
    bound = inspect.signature(build).bind(too_sure(), built.path.parent / "like", built.path.parent / "data.npz")
    bound.apply_defaults()
    like = read(Request.of({**bound.arguments, "like": built.path}))
    assert like.declared.output == OutputSteps(fit_temperature=True)


def test_one_that_is_no_better_is_not_used_and_one_that_cannot_be_put_in_is_refused() -> None:
    table = Table({"x": X}, LABELS, "data.npz", "")
    right = prepare(open_source(too_sure(1.0), table), table, labels=None, given={})
    few = np.arange(12)
    found = fit(right, few, np.arange(100, ROWS))
    assert found.fitted != 1.0 and found.temperature == 1.0 and "no temperature" in found.told()
    with pytest.raises(UnsupportedModelError, match="last layer is not known"):
        fit(replace(right, head=None), few, few)


def test_a_temperature_is_given_or_fitted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either given or fitted"):
        OutputSteps(temperature=2.0, fit_temperature=True)
    (tmp_path / "given.toml").write_text("[output]\ntemperature = 2.0\n")
    np.savez(tmp_path / "data.npz", x=X, label=LABELS)
    with pytest.raises(RequestError, match=r"--fit-temperature contradicts given\.toml"):
        build(
            too_sure(),
            tmp_path / "no",
            tmp_path / "data.npz",
            processing=tmp_path / "given.toml",
            fit_temperature=True,
        )
    arguments = ["build", "model.onnx", "-o", str(tmp_path / "no"), "--data", str(tmp_path / "data.npz")]
    done = CliRunner().invoke(cli.app, [*arguments, "--like", "base", "--fit-temperature"])
    assert done.exit_code == 2 and "--fit-temperature and --like contradict" in done.output
