from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from model_export.data import Table
from model_export.errors import SourceError, UnsupportedModelError, UntrustedSourceError
from model_export.graphs.probe import Probe
from model_export.prepare import prepare, require_rows
from model_export.sources import open_source, parity
from tests.doubles.digits import splits
from tests.unit.export.models import two_layers

X, Y = splits().validation.x, splits().validation.y
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def table(x: Any = X, y: Any = Y) -> Table:
    return Table({"x": np.asarray(x)}, np.asarray(y), "data.npz", "0" * 64)


@pytest.mark.parametrize(
    ("estimator", "labels", "head", "scores"),
    [
        (MLPClassifier((16, 8), max_iter=5, random_state=0), Y, True, "probabilities"),
        (MLPClassifier((16, 8), max_iter=5, random_state=0), Y > 4, True, "probabilities"),
        (
            make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=5, random_state=0)),
            NAMES[Y],
            True,
            "probabilities",
        ),
        (LogisticRegression(), Y, True, "probabilities"),
        (LogisticRegression(), NAMES[Y], True, "probabilities"),
        (LogisticRegression(), Y > 4, True, "probabilities"),
        (LinearSVC(random_state=0), Y, True, "logits"),
        (SGDClassifier(random_state=0), Y, True, "logits"),
        (SGDClassifier(random_state=0), Y > 4, True, "logits"),
        (SGDClassifier(loss="log_loss", random_state=0), Y, False, "probabilities"),
        (RidgeClassifier(), Y + 3, True, "logits"),
        (RandomForestClassifier(5, random_state=0), NAMES[Y], False, "probabilities"),
    ],
    ids=lambda value: str(value.dtype if isinstance(value, np.ndarray) else value),
)
@pytest.mark.filterwarnings("ignore")
def test_sklearn_classifiers_predict_the_same_through_onnx(
    estimator: Any, labels: Any, head: bool, scores: str
) -> None:
    estimator.fit(X, labels)
    data = table(y=labels)
    source = open_source(estimator, data)
    assert parity.check(source, data) is not None
    prepared = prepare(source, data, labels=None, given={})
    assert prepared.class_names == tuple(str(c) for c in estimator.classes_)
    assert (prepared.head is not None) is head
    assert prepared.roles[prepared.scores] == scores
    outputs = Probe(prepared.model).run(prepared.rows)
    best = outputs[prepared.scores].argmax(axis=1)
    assert (estimator.classes_[best] == estimator.predict(X)).mean() > 0.995
    (label,) = [name for name, role in prepared.roles.items() if role == "label"]
    assert outputs[label].tolist() == best.tolist()
    assert np.allclose(prepared.probabilities(outputs).sum(axis=1), 1.0, atol=1e-4)


def test_a_joblib_file_is_loaded_only_on_trust(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "bomb.joblib").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UntrustedSourceError) as caught:
        open_source(tmp_path / "bomb.joblib", table())
    assert "--trust-source" in caught.value.hint
    assert not (tmp_path / "exploded").exists()


def test_a_trusted_joblib_file_gives_the_estimator_and_its_digest(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "digits.joblib")
    source = open_source(tmp_path / "digits.joblib", table(), trust_source=True)
    assert (source.kind, source.name, source.file, len(source.sha256)) == ("sklearn", "digits", "digits.joblib", 64)
    assert source.classes == tuple(range(10))


@pytest.mark.parametrize(
    ("content", "trust"), [(b"not a pickle", True), (pickle.dumps({"a": 1}), True)], ids=["garbage", "dictionary"]
)
def test_a_joblib_file_without_an_estimator_is_refused(tmp_path: Path, content: bytes, trust: bool) -> None:
    (tmp_path / "a.joblib").write_bytes(content)
    with pytest.raises(SourceError):
        open_source(tmp_path / "a.joblib", table(), trust_source=trust)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [(LinearRegression().fit(X, Y), "no classifier"), (LogisticRegression(), "not fitted")],
    ids=str,
)
def test_estimators_that_cannot_be_watched_are_refused(estimator: Any, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        open_source(estimator, table())


def test_onnx_files_whole_truncated_empty_and_absent(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(two_layers(), file)
    assert open_source(str(file), table()).name == "net"
    for size in (file.stat().st_size // 2, 0):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(SourceError, match=r"net\.onnx"):
            open_source(str(file), table())
    with pytest.raises(SourceError, match="no file"):
        open_source("absent.onnx", table())


def test_external_data_that_is_absent_is_a_source_error(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(two_layers(), file, save_as_external_data=True, location="net.data", size_threshold=0)
    first = open_source(file, table())
    assert first.model.graph.initializer[0].raw_data
    (tmp_path / "net.data").write_bytes(bytes((tmp_path / "net.data").stat().st_size))
    assert open_source(file, table()).sha256 != first.sha256, "weights outside the file count too"
    (tmp_path / "net.data").unlink()
    with pytest.raises(SourceError, match=r"net\.data"):
        open_source(file, table())


@pytest.mark.parametrize("text", ["net.pt", "readme", "http://example.com/net.onnx2"])
def test_what_is_no_source_says_what_is(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text, table())
    assert "module:f" in caught.value.hint


def test_a_factory_is_imported_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "def make():\n    return LogisticRegression().fit([[0.0], [1.0]], [0, 1])\n"
        "def broken():\n    raise RuntimeError('no weights')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = open_source("my_models:make", table())
    assert (source.kind, source.name, source.file) == ("sklearn", "make", "my_models:make")
    with pytest.raises(SourceError, match="no weights"):
        open_source("my_models:broken", table())
    for text in ("my_models:absent", "absent_module:make", "my_models:number"):
        with pytest.raises(SourceError):
            open_source(text, table())


def test_too_few_rows_and_wrong_labels_are_refused() -> None:
    model = two_layers()
    small = Table({"x": np.zeros((10, 4), np.float32)}, np.zeros(10, np.int64), "d.npz", "")
    with pytest.raises(Exception, match="10 rows"):
        require_rows(small)
    data = Table({"x": np.random.default_rng(0).normal(size=(80, 4))}, np.arange(80) % 3, "d.npz", "")
    with pytest.raises(Exception, match="2 labels for a model of 3"):
        prepare(open_source(model, data), data, labels=["a", "b"], given={})
    with pytest.raises(Exception, match="not all different"):
        prepare(open_source(model, data), data, labels=["a", "b", "a"], given={})
    assert prepare(open_source(model, data), data, labels=["a", "b", "c"], given={}).class_names == ("a", "b", "c")


def test_sigmoids_of_several_classes_are_told_of() -> None:
    data = Table({"x": np.random.default_rng(0).normal(size=(80, 4))}, np.arange(80) % 3, "d.npz", "")
    notes = prepare(open_source(two_layers(last="Sigmoid"), data), data, labels=None, given={}).notes
    assert any("taken for logits" in note for note in notes)
    notes = prepare(open_source(two_layers(), data), data, labels=None, given={}).notes
    assert not any("taken for logits" in note for note in notes)
