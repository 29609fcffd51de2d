"""A package's model as other tools take it, and what other tools write as a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from model_export import build, cli
from model_export.data import Table
from model_export.errors import DestinationError, RequestError, SourceError, UnsupportedModelError, UntrustedSourceError
from model_export.graphs.probe import Probe
from model_export.reading.audited import open_audited
from model_export.reading.exchange import FORMS, convert
from model_export.sources import open_source
from tests.unit.export.models import rows, two_layers

NAMES = ("calm", "angry", "asking")
DATA = Table({"x": rows(60)}, np.arange(60) % 3, "data.npz", "")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange")
    np.savez(folder / "data.npz", x=rows(60), label=np.arange(60) % 3)
    build(two_layers(), folder / "moods", folder / "data.npz", labels=NAMES, precision=("fp32",), reproducible=True)
    return folder / "moods"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_computes_the_same_with_onnxruntime_alone(package: Path, tmp_path: Path, form: str) -> None:
    assert convert(open_audited(package), tmp_path / form, form) == "cpu-fp32"
    session = onnxruntime.InferenceSession(tmp_path / form / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"x": rows(60)})
    assert np.allclose(scores, Probe(two_layers()).run({"x": rows(60)})["scores"], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [form], "nothing is left beside it"


def test_an_mlflow_model_goes_out_and_comes_back(package: Path, tmp_path: Path) -> None:
    convert(open_audited(package), tmp_path / "moods-mlflow", "mlflow")
    told = yaml.safe_load((tmp_path / "moods-mlflow" / "MLmodel").read_text())
    (given,) = json.loads(told["signature"]["inputs"])
    assert given == {"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
    assert told["metadata"]["labels"] == list(NAMES)
    source = open_source(tmp_path / "moods-mlflow", DATA)
    assert (source.kind, source.name, source.file) == ("onnx", "moods-mlflow", "moods-mlflow/model.onnx")


def test_mlflow_itself_takes_it(package: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny pandas")
    pytest.importorskip("pandas", reason="pip install mlflow-skinny pandas")
    convert(open_audited(package), tmp_path / "moods", "mlflow")
    served = mlflow.pyfunc.load_model(str(tmp_path / "moods"))
    assert np.asarray(served.predict(rows(60))["scores"]).shape == (60, 3)


def test_a_hugging_face_folder_goes_out_and_comes_back_with_its_labels(package: Path, tmp_path: Path) -> None:
    convert(open_audited(package), tmp_path / "moods", "huggingface")
    source = open_source(tmp_path / "moods", DATA)
    assert (source.kind, source.classes) == ("onnx", NAMES)


def mlflow_folder(folder: Path, flavour: str, **told: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": {}, flavour: told}}))
    return folder


def test_an_mlflow_model_of_scikit_learn_is_a_pickle(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path / "trees", "sklearn", pickled_model="model.pkl")
    joblib.dump(LogisticRegression().fit(rows(60), np.arange(60) % 3), folder / "model.pkl")
    with pytest.raises(UntrustedSourceError):
        open_source(folder, DATA)
    source = open_source(folder, DATA, trust_source=True)
    assert (source.kind, source.name, source.file) == ("sklearn", "trees", "trees/model.pkl")


def test_mlflow_models_that_are_not_whole_or_not_known_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.onnx").write_bytes(two_layers().SerializeToString())
    for path in ("../secret.onnx", "absent.onnx"):
        with pytest.raises(SourceError, match="which is not there"):
            open_source(mlflow_folder(tmp_path / "model", "onnx", data=path), DATA)
    with pytest.raises(UnsupportedModelError, match="spacy") as caught:
        open_source(mlflow_folder(tmp_path / "model", "spacy"), DATA)
    assert "onnx" in caught.value.hint
    (tmp_path / "model" / "MLmodel").write_text("- nothing")
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(tmp_path / "model", DATA)


def test_the_command_says_what_it_wrote_and_refuses_what_makes_no_sense(package: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(package), "--to", "onnx", "-o", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variant"] == "cpu-fp32"
    assert (tmp_path / "out" / "labels.txt").read_text().split() == list(NAMES)
    opened = open_audited(package)
    with pytest.raises(DestinationError):
        convert(opened, tmp_path / "out", "onnx")
    for form, variant in (("tensorrt", None), ("onnx", "cuda-fp16")):
        with pytest.raises(RequestError) as caught:
            convert(opened, tmp_path / "other", form, variant)
        assert caught.value.hint
