"""scikit-learn's pipelines over the columns of a table and over texts: strings go in as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.package import Package
from edgeloop.runtime import ModelSession
from model_export import build
from model_export.data import Table, read_table
from model_export.errors import DataError
from model_export.sources.taken import taken_by
from tests.doubles import processed

pytest.importorskip("sklearn", reason="pip install 'edgeloop[export]'")
pytest.importorskip("pyarrow", reason="pip install 'edgeloop[export]'")

ROWS = 240


def table() -> tuple[Any, Any, Any]:
    """Ages, kinds of work, and what follows from them."""
    chance = np.random.default_rng(2)
    age = chance.integers(20, 60, ROWS).astype(np.float64)
    work = chance.choice(["private", "state", "own"], ROWS)
    return age, work, np.where((age > 40) == (work == "state"), "yes", "no")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "people.csv"
    age, work, label = table()
    lines = [f"{a:.0f},{w},{y}" for a, w, y in zip(age, work, label, strict=True)]
    path.write_text("age,work,label\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def estimator() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    age, work, label = table()
    rows = np.empty((ROWS, 2), object)
    rows[:, 0], rows[:, 1] = age, work
    columns = ColumnTransformer(
        [("number", StandardScaler(), [0]), ("kind", OneHotEncoder(handle_unknown="ignore"), [1])]
    )
    return make_pipeline(columns, DecisionTreeClassifier(max_depth=3, random_state=0)).fit(rows, label)


def test_a_table_with_categories_becomes_inputs_of_their_own(people: Path, estimator: Any, tmp_path: Path) -> None:
    build(estimator, tmp_path / "package", people, name="people", reproducible=True)
    package = Package.open(tmp_path / "package")
    assert [(s.name, s.datatype, s.shape) for s in package.meta.inputs] == [
        ("age", "FP32", (-1, 1)),
        ("work", "BYTES", (-1, 1)),
    ]
    assert package.meta.needs == ()
    assert package.meta.labels == ("no", "yes")
    session = ModelSession.load(package, "cpu-fp32")
    rows = {"age": np.array([[50], [50], [30]], np.float32), "work": np.array([["state"], ["own"], ["?"]], object)}
    (found,) = session.run(rows, [session.output("probabilities") or ""])
    plain = np.array([[50, "state"], [50, "own"], [30, "?"]], object)
    plain[:, 0] = plain[:, 0].astype(float)
    np.testing.assert_allclose(found, estimator.predict_proba(plain), atol=1e-6)


def test_data_that_lack_a_column_say_so(people: Path, estimator: Any, tmp_path: Path) -> None:
    read = read_table(people)
    taken = taken_by(estimator, read)
    assert taken is not None and taken.names == ("age", "work") and taken.texts == {"work"}
    fitted = type("Fitted", (), {"n_features_in_": 2, "feature_names_in_": ["age", "town"], "steps": []})()
    fitted.transformers = [("a", None, ["town"])]
    with pytest.raises(DataError, match="town"):
        taken_by(fitted, read)
    fitted.transformers = []
    unnamed = taken_by(fitted, read)
    assert unnamed is not None and (unnamed.names, unnamed.width) == ((), 2)


def test_columns_in_another_order_than_they_were_fitted_in_are_no_row() -> None:
    fitted = type("Fitted", (), {"n_features_in_": 2, "feature_names_in_": ["age", "size"], "steps": []})()
    columns = {name: np.zeros(3) for name in ("size", "age")}
    with pytest.raises(DataError, match="columns size, age; the estimator was fitted with age, size"):
        taken_by(fitted, Table(columns, np.zeros(3), "people.csv", ""))
    taken = taken_by(fitted, Table(dict(reversed(columns.items())), np.zeros(3), "people.csv", ""))
    assert taken is not None and (taken.names, taken.width) == ((), 2)


def test_a_vectorizer_of_texts_is_a_part_of_the_graph(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [processed.sentence(number % 2, 5000 + number) for number in range(150)]
    kinds = [processed.KINDS[number % 2] for number in range(150)]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, kinds)
    data = processed.write_sentences(tmp_path / "data.csv")
    build(pipeline, tmp_path / "package", data, name="sentences", reproducible=True)
    package = Package.open(tmp_path / "package")
    assert [(s.name, s.datatype, s.shape) for s in package.meta.inputs] == [("sentence", "BYTES", (-1,))]
    assert package.meta.needs == (), "ONNX Runtime alone runs it"
    session = ModelSession.load(package, "cpu-fp32")
    few = np.array([*texts[:5], "", "nothing known"], object)
    (found,) = session.run({"sentence": few}, [session.output("probabilities") or ""])
    np.testing.assert_allclose(found, pipeline.predict_proba(few), atol=1e-5)
