from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest

pytest.importorskip("onnxmltools", reason="an optional extra: pip install 'edgeloop[boosting]'")
xgboost = pytest.importorskip("xgboost", reason="an optional extra: pip install 'edgeloop[boosting]'")
lightgbm = pytest.importorskip("lightgbm", reason="an optional extra: pip install 'edgeloop[boosting]'")

from sklearn.pipeline import make_pipeline  # noqa: E402  after importorskip
from sklearn.preprocessing import StandardScaler  # noqa: E402

from model_export import build  # noqa: E402
from model_export.data import Table  # noqa: E402
from model_export.errors import SourceError, UnsupportedModelError  # noqa: E402
from model_export.graphs.probe import Probe  # noqa: E402
from model_export.prepare import prepare  # noqa: E402
from model_export.sources import Source, open_source, parity  # noqa: E402
from tests.doubles.digits import splits  # noqa: E402

X, Y = splits().validation.x, splits().validation.y
DATA = Table({"x": X}, Y, "digits.npz", "0" * 64)
TWO = Table({"x": X}, (Y > 4).astype(np.int64), "digits.npz", "0" * 64)
SMALL = {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}
QUIET = {"objective": "multiclass", "num_class": 10, "verbose": -1, "num_threads": 1}


def booster_of_xgboost(data: Table, **params: Any) -> Any:
    given = {"max_depth": 3, "nthread": 1, **params}
    return xgboost.train(given, xgboost.DMatrix(X, label=data.labels), num_boost_round=10)


def checked(source: Source, data: Table) -> Any:
    """The best class of each row, once parity and all that follows have passed."""
    found = parity.check(source, data)
    assert found is not None and found.rows == len(X)
    assert set(found.outputs) == {value.name for value in source.model.graph.output}
    assert all(output.equal_decisions is not None for output in found.outputs.values())
    prepared = prepare(source, data, labels=None, given={})
    return Probe(prepared.model).run(prepared.rows)[prepared.scores].argmax(axis=1)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "two classes of xgboost", "two classes of lightgbm"])
def test_a_classifier_in_a_pipeline_predicts_the_same_through_onnx(kind: str) -> None:
    data = TWO if kind.startswith("two") else DATA
    trees = xgboost.XGBClassifier(**SMALL) if "xgboost" in kind else lightgbm.LGBMClassifier(**SMALL, verbose=-1)
    pipeline = make_pipeline(StandardScaler(), trees).fit(X, data.labels)
    source = open_source(pipeline, data)
    assert source.kind == "sklearn" and {"onnxmltools", kind.rsplit(maxsplit=1)[-1]} <= set(source.tools)
    assert (checked(source, data) == pipeline.predict(X)).mean() > 0.99


@pytest.mark.parametrize(
    ("data", "params"),
    [(DATA, {"objective": "multi:softprob", "num_class": 10}), (TWO, {"objective": "binary:logistic"})],
    ids=["ten", "two"],
)
def test_a_booster_of_xgboost_from_its_own_file_needs_no_trust(tmp_path: Path, data: Table, params: Any) -> None:
    booster = booster_of_xgboost(data, **params)
    booster.save_model(tmp_path / "trees.ubj")
    source = open_source(tmp_path / "trees.ubj", data)
    assert (source.kind, source.name, source.file, len(source.sha256)) == ("xgboost", "trees", "trees.ubj", 64)
    told = booster.predict(xgboost.DMatrix(X))
    expected = told.argmax(axis=1) if told.ndim == 2 else told > 0.5
    assert (checked(source, data) == expected).mean() > 0.99


def test_a_booster_becomes_a_package(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, label=TWO.labels)
    booster_of_xgboost(TWO, objective="binary:logistic").save_model(tmp_path / "trees.ubj")
    report = build(tmp_path / "trees.ubj", tmp_path / "package", tmp_path / "data.npz", reproducible=True)
    assert report.metrics["cpu-fp32"].accuracy > 0.8
    (file,) = (tmp_path / "package").rglob("*.onnx")
    assert [node.op_type for node in onnx.load(file).graph.node] == ["TreeEnsembleClassifier"], (
        "it says the index itself"
    )


def test_a_booster_of_lightgbm_from_its_own_file_and_from_memory(tmp_path: Path) -> None:
    booster = lightgbm.train(QUIET, lightgbm.Dataset(X, label=Y), num_boost_round=10)
    booster.save_model(tmp_path / "trees.txt")
    for given in (tmp_path / "trees.txt", booster):
        source = open_source(given, DATA)
        assert source.kind == "lightgbm"
        assert (checked(source, DATA) == booster.predict(X).argmax(axis=1)).mean() > 0.99


def test_what_is_no_classifier_or_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no probabilities") as caught:
        open_source(booster_of_xgboost(DATA, objective="reg:squarederror", base_score=-5.0), DATA)
    assert "multi:softprob" in caught.value.hint
    for name in ("trees.ubj", "trees.txt"):
        (tmp_path / name).write_text("not a model")
        with pytest.raises(SourceError, match="no model of"):
            open_source(tmp_path / name, DATA)
    with pytest.raises(SourceError, match="no file"):
        open_source(tmp_path / "absent.json", DATA)


def test_a_joblib_file_of_a_booster_is_one(tmp_path: Path) -> None:
    joblib.dump(xgboost.XGBClassifier(**SMALL).fit(X, Y), tmp_path / "trees.joblib")
    assert "xgboost" in open_source(tmp_path / "trees.joblib", DATA, trust_source=True).tools
