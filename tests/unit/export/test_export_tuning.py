"""The search: what it may choose, what it must not, that it goes on where it was, and that --like needs none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeloop.package import Package
from edgeloop.runtime import timing
from edgeloop.runtime.comparing import Compared, Setting, compare
from model_export import build, cli
from model_export.building.build_report import BuildReport
from model_export.caching.cache import Cache
from model_export.tuning.bench import Bench
from model_export.tuning.elsewhere import Figure
from model_export.tuning.judging import halves, loss_of, rows_needed
from model_export.tuning.options import TuneOptions
from model_export.tuning.trials import Trial, with_front
from model_export.variants.likeness import Recipe
from model_export.variants.recipes import Int8Options, VariantRecipe
from tests.unit.export import networks

pytest.importorskip("optuna", reason="pip install 'edgeloop[tune]'")

OPTIONS = TuneOptions("size", accuracy_drop=0.02, trials=9, time_limit_s=120, timing_s=0.2)
ROWS = 600


@pytest.fixture(scope="module", name="folder")
def folder_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    np.savez(folder / "data.npz", image=networks.images(ROWS), label=networks.classes(ROWS))
    return folder


@pytest.fixture(scope="module", name="report")
def report_once(folder: Path) -> BuildReport:
    """A net with an outlier, which plain int8 ruins, tuned for size."""
    model, cache = networks.conv_net(outlier=True), Cache(folder / "cache")
    return build(
        model, folder / "out", folder / "data.npz", targets=("cpu", "cuda"), tune=OPTIONS, cache=cache, name="net"
    )


def _told(report: BuildReport) -> Any:
    assert report.tuning is not None
    return report.tuning


def test_a_device_decides_where_one_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double of a device finds fp16 fastest, and int8 wrong; here all are equal, whatever the clock says."""
    asked: list[str] = []
    timed = timing.Timing(1.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, 100)
    monkeypatch.setattr(Bench, "compare", lambda self, base, some, *_: [Compared("", timed, 1.0, 0)] * (len(some) + 1))

    def elsewhere(package: Package) -> dict[str, Figure]:
        assert package.name == "net"
        asked.extend(package.variants)
        told = {"baseline": 2.0, "cpu-fp16": 1.0, "cpu-fp32": 1.9}
        return {n: Figure(told[k], 1000) for n in package.variants for k in told if n.startswith(k)}

    made = build(
        networks.conv_net(),
        folder / "device",
        folder / "data.npz",
        name="net",
        tune=TuneOptions("latency", 0.02, 7, 120, timing_s=0.1, elsewhere=elsewhere, name="net"),
        cache=Cache(folder / "cache"),
    )
    assert "baseline" in asked and any(name.startswith("cpu-int8") for name in asked)
    assert list(made.metrics) == ["cpu-fp16", "cpu-fp32"]
    by_name = {trial["name"]: trial for trial in _told(made)["trials"] if trial["front"]}
    assert by_name["cpu-fp16"]["ratio"] == 0.5 and by_name["cpu-fp16"]["latency_ms"] == 1.0
    turned_down = [t["why"] for t in _told(made)["trials"] if t["name"] == "cpu-int8"]
    assert turned_down and all("device has not measured" in why or "loses" in why for why in turned_down)


def test_plain_int8_is_turned_down_and_something_smaller_and_right_is_chosen(report: BuildReport) -> None:
    told = _told(report)
    trials = [Trial.from_json(trial) for trial in told["trials"]]
    plain = [t for t in trials if t.recipe.precision == "int8" and not t.recipe.excluded]
    assert plain and all("loses" in trial.why for trial in plain)
    chosen = VariantRecipe.from_json(told["recipes"][0])
    assert chosen.target == "cpu" and chosen.name in report.metrics and chosen != VariantRecipe("fp32")
    trial = next(t for t in trials if t.recipe == chosen)
    assert trial.bound is not None and trial.bound <= 0.02
    assert trial.size_bytes is not None and trial.size_bytes < told["baseline"]["size_bytes"]
    assert trial.latency_ms and trial.cpu_ms
    assert told["sensitivity"][0]["node"] == "conv_2" and told["sensitivity"][0]["accuracy_without"] == 1.0


def test_fp32_stays_beside_it_and_what_cannot_be_measured_is_said(report: BuildReport) -> None:
    assert {"cpu-fp32", "cuda-fp16"} < set(report.metrics)
    assert report.metrics["cuda-fp16"].latency_ms is None and report.metrics["cuda-fp16"].accuracy == 1.0
    assert any("cuda is not tuned" in note for note in report.notes)
    spec = Package.open(report.path).variants["cuda-fp16"]
    assert (spec.ep, spec.device, spec.precision) == ("CUDAExecutionProvider", "gpu", "fp16")


def test_the_tuning_file_tells_what_was_tried(report: BuildReport) -> None:
    told = json.loads(report.path.with_name("out.tuning.json").read_text())
    assert told == report.tuning
    assert told["objective"] == "size" and told["chosen"] == list(report.metrics)
    assert [Trial.from_json(trial).to_json() for trial in told["trials"]] == told["trials"]
    front = [trial for trial in told["trials"] if trial["front"]]
    assert front and all(not trial["why"] for trial in front)
    assert told["sensitivity"][0]["node"] == "conv_2"


def test_a_search_goes_on_where_it_was(report: BuildReport, folder: Path) -> None:
    steps: list[str] = []
    again = build(
        networks.conv_net(outlier=True),
        folder / "again",
        folder / "data.npz",
        targets=("cpu", "cuda"),
        tune=replace(OPTIONS, time_limit_s=121),  # so that it is no package that was built before, but its trials are
        cache=Cache(folder / "cache"),
        name="net",
        on_step=steps.append,
    )
    assert not again.cached and not any(step.startswith("trial ") for step in steps)
    assert _told(again)["trials"] == _told(report)["trials"] and _told(again)["recipes"] == _told(report)["recipes"]


def test_a_second_build_of_the_same_brings_the_tuning_file_back(report: BuildReport, folder: Path) -> None:
    again = build(
        networks.conv_net(outlier=True),
        folder / "same",
        folder / "data.npz",
        targets=("cpu", "cuda"),
        tune=OPTIONS,
        cache=Cache(folder / "cache"),
        name="net",
    )
    assert again.cached and again.digest == report.digest and again.tuning == report.tuning
    assert json.loads((folder / "same.tuning.json").read_text()) == report.tuning


def test_a_package_like_a_tuned_one_has_its_variants_without_a_search(report: BuildReport, folder: Path) -> None:
    base = Package.open(report.path)
    assert [recipe.to_json() for recipe in Recipe.of(base).variants] == _told(report)["recipes"]
    made = [
        build(networks.conv_net(outlier=True), folder / name, folder / "data.npz", like=report.path)
        for name in ("like-1", "like-2")
    ]
    assert made[0].digest == made[1].digest and made[0].tuning is None
    old, new = ({e.path: e.sha256 for e in Package.open(r.path).index.entries} for r in (report, made[0]))
    assert {path for path in old if old[path] != new.get(path)} == {"manifest.json"} and set(old) == set(new)


def test_options_of_a_search_without_one_are_refused(folder: Path) -> None:
    arguments = ["build", "model.onnx", "-o", str(folder / "no"), "--data", str(folder / "data.npz")]
    done = CliRunner().invoke(cli.app, [*arguments, "--objective", "size"])
    assert done.exit_code == 2 and "says nothing without --tune" in done.output


@pytest.mark.parametrize(
    ("more", "says"), [([], "the hub is not said"), (["--hub", "http://127.0.0.1:1"], "--name NAME")]
)
def test_a_device_is_asked_through_a_hub_for_a_model_that_it_knows(folder: Path, more: list[str], says: str) -> None:
    arguments = ["build", "model.onnx", "-o", str(folder / "no"), "--data", str(folder / "data.npz"), "--tune"]
    done = CliRunner().invoke(cli.app, [*arguments, "--on-device", "cam-1", *more])
    assert done.exit_code == 2 and says in done.output


# ── judging ──────────────────────────────────────────────────────────────────────────────────────


def _losses(rows: int, lost: int, won: int) -> Any:
    before, now = np.ones(rows, bool), np.ones(rows, bool)
    now[:lost] = False
    before[lost : lost + won] = False
    return loss_of(before, now)


def test_the_bound_is_wide_on_few_rows_and_narrow_on_many() -> None:
    assert _losses(100, 0, 0).value == 0 and _losses(100, 0, 0).bound > 0.01
    assert _losses(100, 1, 0).bound > _losses(1000, 10, 0).bound > _losses(10_000, 100, 0).bound > 0.01
    assert _losses(1000, 20, 20).value == 0 and _losses(1000, 20, 20).bound > _losses(1000, 0, 0).bound
    assert _losses(400, 40, 0).least > 0.05


@pytest.mark.parametrize("drop", [0.002, 0.01, 0.05])
def test_rows_needed_is_what_a_perfect_variant_needs_in_each_half(drop: float) -> None:
    half = rows_needed(drop) // 2
    assert _losses(half, 0, 0).bound <= drop < _losses(half - 2, 0, 0).bound


def test_a_loss_of_twice_the_budget_seldom_passes_both_halves() -> None:
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        halves_pass = []
        for _ in range(2):
            now = random.random(500) >= 0.02
            halves_pass.append(loss_of(np.ones(500, bool), now).bound <= 0.01)
        passed += all(halves_pass)
    assert passed <= 4  # of 400


def test_halves_share_no_row_and_hold_every_class() -> None:
    truth = np.repeat([0, 1, 2], [40, 30, 9])
    rows = np.arange(100, 179)
    choosing, confirming = halves(rows, truth)
    assert sorted([*choosing, *confirming]) == list(rows)
    assert set(truth[choosing - 100]) == set(truth[confirming - 100]) == {0, 1, 2}


def test_the_front_holds_what_nothing_beats_in_everything() -> None:
    fp32 = Trial(VariantRecipe("fp32"), accuracy=0.9, size_bytes=100, ratio=1.0, latency_ms=2.0)
    int8 = Trial(VariantRecipe("int8", int8=Int8Options()), accuracy=0.9, size_bytes=25, ratio=0.5)
    slow = replace(int8, recipe=VariantRecipe("int8", int8=Int8Options("s8s8")), ratio=0.9, accuracy=0.89)
    small = replace(slow, recipe=VariantRecipe("fp16"), size_bytes=20)
    wrong = replace(small, recipe=VariantRecipe("fp16", input_scale=0.5), size_bytes=1, why="it loses 0.2")
    marked = with_front([int8, slow, small, wrong], "latency", fp32)
    assert [trial.front for trial in marked] == [True, False, True, False]


# ── timing ───────────────────────────────────────────────────────────────────────────────────────


class _Clock:
    """Time that passes only when somebody works; every other round is disturbed twofold, for all alike."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter

    def work(self, seconds: float) -> None:
        self.calls += 1
        self.now += seconds * (2.0 if self.now % 1.0 > 0.5 else 1.0)


def test_ratios_are_those_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(timing, "time", clock)
    first, second = timing.interleaved([lambda: clock.work(0.001), lambda: clock.work(0.003)], 60.0)
    assert first.ratio == 1.0 and second.low <= second.ratio <= second.high
    assert second.ratio == pytest.approx(3.0, rel=0.2) and second.cpu_ms > first.cpu_ms


def test_timing_ends_early_when_a_contender_is_surely_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for hopeless in (2.0, 100.0):
        clock = _Clock()
        monkeypatch.setattr(timing, "time", clock)
        timing.interleaved([lambda: clock.work(0.001), lambda: clock.work(0.05)], 60.0, hopeless=hopeless, close=0.0)  # noqa: B023
        counts.append(clock.calls)
    assert counts[0] < counts[1]


def test_a_variant_that_does_not_load_is_a_row_with_its_reason(report: BuildReport) -> None:
    package = Package.open(report.path)
    there, missing = compare(package, ["cpu-fp32", "cpu-int3"], Setting(), 0.1)
    assert there.timing is not None and there.memory_bytes is not None and not there.reason
    assert missing.timing is None and "no variant 'cpu-int3'" in missing.reason
