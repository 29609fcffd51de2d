"""Golden cases and the choice: right before fast, and nothing by hope."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from edgeloop.package import Draft, DraftVariant, OutputSpec, Package, TensorSpec, write_package
from edgeloop.runtime import CPU, GoldenReport, ModelLoadError, ModelSession, Rules, check_golden, choose
from tests.doubles.packages import CLASSES, answers, make_model, make_package

NEVER = "QNNExecutionProvider"


def spoil_weights(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            changed = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), name))
    return model


def package_of(dest: Path, **models: tuple[str, onnx.ModelProto, str]) -> Package:
    """Variants by name: precision, model, provider. The reference is what the plain network answers."""
    x = np.random.default_rng(2).random((32, 64)).astype(np.float32)
    reference = answers(make_model(), x)
    return write_package(
        dest,
        Draft(
            name="digits",
            version="1",
            variants=[DraftVariant(name, p, model, ep) for name, (p, model, ep) in models.items()],
            labels=[str(i) for i in range(CLASSES)],
            inputs=[TensorSpec("x", "FP32", (-1, 64))],
            outputs=[
                OutputSpec("label", "INT64", (-1,), "label"),
                OutputSpec("probabilities", "FP32", (-1, CLASSES), "probabilities"),
                OutputSpec("features", "FP32", (-1, 16), "features"),
            ],
            golden_inputs={"x": x},
            golden_outputs={precision: reference for precision, _, _ in models.values()},
        ),
    )


def report(package: Package, variant: str = "a") -> GoldenReport:
    return check_golden(ModelSession.load(package, variant), package)


def test_golden_cases_are_reproduced(tmp_path: Path) -> None:
    found = report(package_of(tmp_path / "p", a=("fp32", make_model(), CPU)))
    assert found.ok and found.cases == 32 and found.worst_difference < 1 and found.top1_agreement == 1
    assert found.reason == ""


def test_wrong_golden_is_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", wrong_golden=True)
    found = check_golden(ModelSession.load(package, "cpu-fp32"), package)
    assert not found.ok and found.reason.startswith("golden: output ") and "probabilities" in found.reason
    with pytest.raises(ModelLoadError, match="cpu-fp32 on CPUExecutionProvider: golden: output"):
        choose(package)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["body.weight", "head.bias"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_that_are_no_numbers_fail(tmp_path: Path, bad: float, name: str, precision: str) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values.flat[3] = bad
        return values

    package = package_of(tmp_path / "p", a=(precision, spoil_weights(make_model(), name, change), CPU))
    found = report(package)
    assert not found.ok and found.reason


@pytest.mark.parametrize(
    ("precision", "noise", "ok"),
    [
        ("fp32", 1e-6, True),
        ("fp32", 1e-2, False),
        ("fp16", 1e-3, True),
        ("fp16", 0.2, False),
        ("int8", 2e-3, True),
        ("int8", 1.0, False),
        ("unheard-of", 1e-2, False),
    ],
)
def test_tolerances(tmp_path: Path, precision: str, noise: float, ok: bool) -> None:
    random = np.random.default_rng(0)
    model = spoil_weights(make_model(), "head.weight", lambda v: v + random.normal(0, noise, v.shape))
    found = report(package_of(tmp_path / "p", a=(precision, model, CPU)))
    assert found.ok == ok, found


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no rows", "no golden outputs"),
        ("narrow", "could not be run"),
        ("a bare number", "could not be run"),
        ("short", "has the shape"),
        ("unknown output", "could not be run"),
        ("missing", "no golden outputs"),
    ],
)
def test_golden_files_that_do_not_fit(tmp_path: Path, case: str, said: str) -> None:
    package = package_of(tmp_path / "p", a=("fp32", make_model(), CPU))
    (inputs,), (outputs,) = package.root.rglob("inputs.safetensors"), package.root.rglob("outputs-fp32.safetensors")
    reference = load_file(outputs)
    if case == "no rows":
        save_file({"x": np.zeros((0, 64), np.float32)}, inputs)
    elif case == "narrow":
        save_file({"x": np.float32(1)[None]}, inputs)
    elif case == "a bare number":
        save_file({"x": np.array(1, np.float32)}, inputs)
    elif case == "short":
        save_file({**reference, "features": reference["features"][:3].copy()}, outputs)
    elif case == "unknown output":
        save_file({**reference, "more": reference["features"]}, outputs)
    else:
        outputs.unlink()
    found = report(package)
    assert not found.ok and said in found.reason
    with pytest.raises(ModelLoadError, match=said):
        choose(package)


def test_golden_files_that_cannot_be_read_are_a_reason(tmp_path: Path) -> None:
    package = package_of(tmp_path / "p", a=("fp32", make_model(), CPU))
    next(package.root.rglob("inputs.safetensors")).write_bytes(b"\xff" * 64)
    with pytest.raises(ModelLoadError, match=r"a on CPUExecutionProvider: golden: inputs\.safetensors cannot be read"):
        choose(package)


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


def slow_model() -> onnx.ModelProto:
    """The same answers, later: thousands of operators that change nothing."""
    model = make_model()
    body = model.graph.node[0]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 64), np.float32), "zero"))
    chain, last = [], "x"
    for i in range(3000):
        chain.append(onnx.helper.make_node("Max" if i % 2 else "Abs", [last, "zero"] if i % 2 else [last], [f"s{i}"]))
        last = f"s{i}"
    body.input[0] = last
    nodes = [*chain, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def test_the_fastest_correct_one_wins(tmp_path: Path) -> None:
    wrong = spoil_weights(make_model(), "head.weight", lambda v: -v)
    package = package_of(
        tmp_path / "p",
        slow=("fp32", slow_model(), CPU),
        wrong=("fp32", wrong, CPU),
        elsewhere=("fp32", make_model(), NEVER),
        quick=("fp32", make_model(), CPU),
    )
    choice = choose(package, Rules(time_budget_s=0.4, policy="quiet"))
    trials = {trial.variant: trial for trial in choice.table}
    assert list(trials) == ["slow", "wrong", "elsewhere", "quick"]
    assert choice.best.variant == "quick" and choice.golden.ok and choice.best.placement
    slow, quick = trials["slow"].median_ms, trials["quick"].median_ms
    assert slow is not None and quick is not None and quick < slow
    assert not trials["wrong"].ok and trials["wrong"].median_ms is None and "golden" in trials["wrong"].reason
    assert not trials["elsewhere"].ok and NEVER in trials["elsewhere"].reason
    assert len(choice.best.run({"x": np.zeros((1, 64), np.float32)})) == 3


def test_required_provider_without_a_variant(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    with pytest.raises(ModelLoadError, match=f"the policy requires {NEVER}: {NEVER} is not in this onnxruntime"):
        choose(package, Rules(required=[NEVER]))
    other = make_package(tmp_path / "other", ep=NEVER)
    with pytest.raises(ModelLoadError, match=f"requires {CPU}, and the package has no variant for it"):
        choose(other, Rules(required=[CPU]))
    with pytest.raises(ModelLoadError, match=f"allows {CPU}, and the package has no variant for it"):
        choose(other, Rules(allowed=[CPU]))
    assert choose(package, Rules(required=[NEVER, CPU], time_budget_s=0.01)).best.provider == CPU


def test_required_provider_that_is_not_installed(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", ep=NEVER)
    with pytest.raises(ModelLoadError, match=f"qnn-fp32 on {NEVER}: {NEVER} is not in this onnxruntime"):
        choose(package, Rules(required=[NEVER]))


def test_only_variants_that_are_here_are_tried(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", precisions=("fp32", "int8"))
    (package.root / "cpu-fp32" / "model.onnx").unlink()
    assert [trial.variant for trial in choose(package, Rules("quiet", time_budget_s=0.01)).table] == ["cpu-int8"]
    (package.root / "cpu-int8" / "model.onnx").unlink()
    with pytest.raises(ModelLoadError, match="no variant of the package is here"):
        choose(package)
    with pytest.raises(ModelLoadError, match="no variant 'tpu'"):
        choose(package, variants=["tpu"])
