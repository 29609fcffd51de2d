"""A build says what it would do, how far it is, and how long it will still take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model_export import build, cli
from model_export.building.planning import plan
from model_export.caching.cache import Cache
from model_export.commands.steps import BUILD, Steps
from model_export.errors import DataError, DestinationError, RequestError
from tests.unit.export.models import rows, two_layers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_from_what_is_done() -> None:
    clock = Clock()
    steps = Steps({"reading": 1, "making": 3}, clock)
    assert steps.done == 0 and steps.left_s is None
    steps.begin("reading data")
    clock.now = 2.0
    steps.begin("making variants")
    assert steps.done == 0.25 and steps.left_s == pytest.approx(6.0)
    steps.begin("trial 2 of 3 makes something")
    assert steps.done == pytest.approx(0.5) and steps.left_s == pytest.approx(2.0)
    steps.begin("golden cases of cpu-int8")  # says nothing new
    assert steps.done == pytest.approx(0.5) and steps.text == "golden cases of cpu-int8"
    steps.begin("reading data")  # a step that comes again does not turn it back
    assert steps.done == pytest.approx(0.5)
    assert Steps({}, clock).done == 0 and Steps({}, clock).left_s is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comfort")
    np.savez(folder / "data.npz", x=rows(90), label=np.arange(90) % 3)
    onnx.save(two_layers(), folder / "net.onnx")
    return folder


def test_a_plan_says_what_would_be_built_and_builds_nothing(folder: Path) -> None:
    cache = Cache(folder / "cache")
    options = {"precision": ("fp32",), "cache": cache, "calibration_share": 0.5}
    before = plan(str(folder / "net.onnx"), folder / "planned", folder / "data.npz", **options)
    assert before.variants == ("cpu-fp32",) and (before.calibration, before.validation) == (45, 45)
    assert before.data["columns"] == {"x": "float32 [4]"} and before.data["classes"] == ["0", "1", "2"]
    assert before.steps["opening the source"] == "to do" and before.missing == ()
    assert not (folder / "planned").exists() and not (folder / "cache").exists()

    told: list[str] = []
    build(str(folder / "net.onnx"), folder / "planned", folder / "data.npz", **options, on_step=told.append)
    steps = [prefix for text in told for prefix in BUILD if text.startswith(prefix)]
    assert steps == list(BUILD), "they are those that the bar knows"
    after = plan(str(folder / "net.onnx"), folder / "again", folder / "data.npz", **options)
    assert after.steps == {"opening the source": "cached", "the package": "cached"}
    other = plan(str(folder / "net.onnx"), folder / "again", folder / "data.npz", **{**options, "version": "2"})
    assert other.steps == {"opening the source": "cached", "the package": "to do"}


def test_a_plan_refuses_what_the_build_would_refuse_and_runs_no_factory(folder: Path) -> None:
    with pytest.raises(DestinationError, match="exists already"):
        plan(str(folder / "net.onnx"), folder, folder / "data.npz")
    with pytest.raises(DataError, match="no data file"):
        plan(str(folder / "net.onnx"), folder / "x", folder / "none.npz")
    told = plan("no_such.module:make", folder / "x", folder / "data.npz")
    assert told.source == "no_such.module:make, which would be imported and called"
    assert plan("none.onnx", folder / "x", folder / "data.npz").source == "none.onnx, which is not there"


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "abc"},
        {"targets": "cpu"},
        {"precision": "int8"},
        {"roles": {"scores": "nonsense"}},
        {"calibration_share": 1.0},
        {"calibration_share": 0.0},
        {"max_loss": -0.1},
        {"validation_rows": 0},
    ],
    ids=str,
)
def test_what_makes_no_sense_from_python_is_refused_before_work_begins(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        plan(str(folder / "net.onnx"), folder / "x", folder / "data.npz", **options)
    assert caught.value.hint


def test_paths_may_be_texts_from_python(folder: Path) -> None:
    (folder / "after.toml").write_text("[output]\ntemperature = 2.0\n")
    options = {"processing": str(folder / "after.toml"), "precision": ("fp32",), "reproducible": True}
    built = build(str(folder / "net.onnx"), str(folder / "texts"), str(folder / "data.npz"), **options)
    assert built.path == folder / "texts"
    planned = plan(
        str(folder / "net.onnx"), str(folder / "alike"), str(folder / "data.npz"), like=str(folder / "texts")
    )
    assert planned.variants == ("cpu-fp32",)


def test_a_dry_run_on_the_command_line(folder: Path) -> None:
    arguments = [
        "build",
        str(folder / "net.onnx"),
        "-o",
        str(folder / "dry"),
        "--data",
        str(folder / "data.npz"),
        "--dry-run",
    ]
    run = CliRunner().invoke(cli.app, arguments)
    assert run.exit_code == 0 and "nothing was built" in run.stdout, run.output
    run = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert json.loads(run.stdout)["variants"] == ["cpu-int8", "cpu-fp32"] and not (folder / "dry").exists()
