"""Sessions: providers, placement, deadlines, errors, datatypes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeloop.package import Package, TensorSpec
from edgeloop.runtime import (
    CPU,
    DeadlineExceeded,
    InferenceError,
    ModelLoadError,
    ModelSession,
    ProviderError,
    available_providers,
    evaluate,
    probabilities_of,
)
from edgeloop.runtime.datatypes import OIP_TO_NUMPY, ORT_TO_OIP, numpy_dtype, oip_name
from edgeloop.runtime.policy import threads_of
from tests.doubles.endless import endless_package
from tests.doubles.packages import answers, make_model, make_package

NEVER = "QNNExecutionProvider"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("runtime") / "digits")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).random((7, 64)).astype(np.float32)


@pytest.fixture
def endless(tmp_path: Path) -> Package:
    return endless_package(tmp_path / "endless")


def test_answers_are_the_networks(package: Package, x: np.ndarray) -> None:
    session = ModelSession.load(package, "cpu-fp32")
    expected = answers(make_model(), x)
    names = [output.name for output in session.outputs]
    found = dict(zip(names, session.run({"x": x}), strict=True))
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
    (alone,) = session.run({"x": x}, ["features"], 5.0)
    assert np.array_equal(alone, found["features"])


def test_what_a_session_says_of_itself(package: Package) -> None:
    session = ModelSession.load(package, "cpu-fp32", policy="quiet", threads=1)
    assert session.inputs == (TensorSpec("x", "FP32", (-1, 64)),)
    assert session.output("probabilities") == "probabilities" and session.output("logits") is None
    assert {o.name: (o.datatype, o.role) for o in session.outputs}["label"] == ("INT64", "label")
    assert session.provider == CPU
    assert list(session.placement) == [CPU] and session.placement[CPU] >= 4


def test_missing_provider_is_named(package: Package) -> None:
    assert NEVER not in available_providers()
    with pytest.raises(ProviderError, match=f"{NEVER} is not in this onnxruntime.*CPUExecutionProvider"):
        ModelSession.load(package, "cpu-fp32", NEVER)
    with pytest.raises(ProviderError, match=NEVER):
        ModelSession.load(package, "cpu-fp32", NEVER, allow_cpu_fallback=True)


def test_missing_variant_is_named(package: Package) -> None:
    with pytest.raises(ModelLoadError, match="no variant 'gpu'; there are cpu-fp32"):
        ModelSession.load(package, "gpu")


def test_what_onnx_runtime_refuses_is_a_load_error(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    next(package.root.rglob("body.weight.bin")).unlink()
    with pytest.raises(ModelLoadError, match="cpu-fp32 on CPUExecutionProvider") as caught:
        ModelSession.load(package, "cpu-fp32")
    assert not isinstance(caught.value, ProviderError) and "\n" not in str(caught.value)


def test_endless_model_is_stopped(endless: Package) -> None:
    session = ModelSession.load(endless, "cpu-fp32")
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"stopped after 0\.2 s"):
        session.run({"x": np.ones((2, 2), np.float32)}, None, 0.2)
    assert 0.15 < time.monotonic() - start < 3


def test_many_deadlines_at_once(endless: Package, package: Package, x: np.ndarray) -> None:
    """Each has its own; a run that is in time is not stopped by another's."""
    slow, fast = ModelSession.load(endless, "cpu-fp32", threads=1), ModelSession.load(package, "cpu-fp32", threads=1)
    ends: list[str] = []

    def run_out(seconds: float) -> None:
        try:
            slow.run({"x": np.ones((2, 2), np.float32)}, None, seconds)
        except DeadlineExceeded:
            ends.append("stopped")

    threads = [threading.Thread(target=run_out, args=(s,)) for s in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        assert len(fast.run({"x": x}, ["label"], 20.0)[0]) == 7
    for thread in threads:
        thread.join(10)
    assert ends == ["stopped"] * 3


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": np.zeros((1, 64), np.float32)},
        {"x": np.zeros((1, 63), np.float32)},
        {"x": np.zeros((1, 64), np.float64)},
        {"x": np.zeros(64, np.float32)},
        {"x": "text"},
    ],
    ids=["none", "another name", "narrow", "double", "no rows", "text"],
)
@pytest.mark.parametrize("deadline_s", [None, 10.0])
def test_inputs_that_do_not_fit(package: Package, inputs: dict[str, np.ndarray], deadline_s: float | None) -> None:
    with pytest.raises(InferenceError) as caught:
        ModelSession.load(package, "cpu-fp32").run(inputs, None, deadline_s)
    assert not isinstance(caught.value, DeadlineExceeded)


@pytest.mark.parametrize("deadline_s", [None, 1.0])
def test_closed_session(package: Package, x: np.ndarray, deadline_s: float | None) -> None:
    session = ModelSession.load(package, "cpu-fp32")
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="the session is closed"):
        session.run({"x": x}, None, deadline_s)


def test_threads_of_a_policy() -> None:
    assert threads_of("quiet") == 1 <= threads_of("balanced") <= threads_of("fast")


def test_probabilities_of_logits() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32)
    found = probabilities_of({"logits": "z"}, {"z": logits})
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5]])
    assert probabilities_of({"probabilities": "p", "logits": "z"}, {"p": found, "z": logits}) is found
    assert probabilities_of({"label": "l"}, {"l": logits}) is None


def test_evaluation(package: Package) -> None:
    session = ModelSession.load(package, "cpu-fp32")
    validation = package.validation()
    assert validation is not None
    inputs, labels = validation
    found = evaluate(session, inputs, labels, batch=7)
    assert found.accuracy == 1.0 and found.n == 300 and found.confusion.trace() == 300
    wrong = labels.copy()
    wrong[:30] = (wrong[:30] + 1) % 10
    found = evaluate(session, inputs, wrong)
    assert found.accuracy == pytest.approx(0.9)
    assert found.confusion[wrong[0], labels[0]] >= 1
    for bad, said in ((labels[:0], "no labelled rows"), (labels - 20, "classes"), (labels + 9, "classes")):
        with pytest.raises(InferenceError, match=said):
            evaluate(session, inputs, bad)


def test_datatypes() -> None:
    for name, dtype in OIP_TO_NUMPY.items():
        assert oip_name(dtype) == name and numpy_dtype(name) == np.dtype(dtype)
    assert oip_name("U5") == oip_name(object) == "BYTES"
    assert set(ORT_TO_OIP.values()) - set(OIP_TO_NUMPY) == {"BF16"}
    for unknown in ("BF16", "float32"):
        with pytest.raises(KeyError):
            numpy_dtype(unknown)
    with pytest.raises(KeyError):
        oip_name(np.complex64)
