"""A package in the caller's own process: the page's examples run, and the answers are an agent's, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.package import Package, PackageError
from edgeloop.runtime import CPU, InferenceError, Model, ModelLoadError, OptionsError
from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-in-process.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("in-process") / "package")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(3).random((5, 64), dtype=np.float32)


def test_the_pages_examples_run(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "package").symlink_to(package.root)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(examples) == 2
    known: dict[str, Any] = {}
    for example in examples:
        exec(example, known)
    assert known["scores"].shape == (4, 10) and known["one"].label.shape == (1,)
    assert np.array_equal(known["prediction"].label, known["outputs"]["label"])
    assert list((tmp_path / "cache" / "evidence").iterdir())


def test_it_answers_what_an_agent_answers_byte_for_byte(package: Package, tmp_path: Path, x: np.ndarray) -> None:
    agent = AgentProcess(tmp_path / "agent")
    install(package, agent.data)
    try:
        agent.start(ready=True)
        names = ["label", "probabilities", "features"]
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in names]
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
        answer = agent.http.post("/v2/models/digits/infer", json={"inputs": [tensor], "outputs": wanted})
        assert answer.status_code == 200, answer.text
        cut = int(answer.headers["Inference-Header-Content-Length"])
        with Model.open(package.root, policy="quiet") as model:
            assert (model.variant, model.provider) == (agent.status()["variant"], agent.status()["provider"])
            own = model.run({"x": x}, names)
        assert b"".join(values.tobytes() for values in own.values()) == answer.content[cut:]
    finally:
        agent.close()


def test_what_it_says_of_itself(package: Package, x: np.ndarray) -> None:
    model = Model.open(package.root, policy="quiet", time_budget_s=0.05)
    assert (model.name, model.version, model.digest) == ("digits", "1", package.digest)
    assert model.variant == "cpu-fp32" and model.provider == CPU and model.threads == 1
    assert list(model.placement) == [CPU] and model.labels[7] == "7" and model.table[0].ok
    assert [spec.name for spec in model.inputs] == ["x"]
    assert repr(model) == f"<Model digits 1: cpu-fp32 on {CPU}, 1 threads>"
    found = model.predict(x)
    assert found.names == [str(label) for label in found.label] and found.probabilities is not None
    model.close()
    with pytest.raises(InferenceError):
        model.run({"x": x})


def test_without_roles_there_is_nothing_to_predict(package: Package, x: np.ndarray) -> None:
    with Model.open(package.root, policy="quiet", time_budget_s=0.05) as model:
        model.inputs = (*model.inputs, *model.inputs)
        with pytest.raises(InferenceError, match="digits has 2 inputs; give them by name to run"):
            model.predict(x)


def test_what_cannot_be_opened_says_why(package: Package, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is no package"):
        Model.open(tmp_path)
    with pytest.raises(ModelLoadError, match="QNNExecutionProvider is not in this onnxruntime"):
        Model.open(package.root, providers=["QNNExecutionProvider"])
    with pytest.raises(OptionsError, match="no option 'speed'"):
        Model.open(package.root, options={"CPUExecutionProvider": {"speed": 1}})
