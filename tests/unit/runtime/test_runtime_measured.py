"""A candidate measured in a process of its own, and what bounds that process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Package
from edgeloop.runtime import CPU, measured
from edgeloop.runtime.isolated import ask_child
from edgeloop.runtime.launch import Launch
from edgeloop.runtime.measured import Bounds, Measured, measure_in_child
from tests.doubles.endless import endless_package
from tests.doubles.packages import make_package

LAUNCH = Launch(CPU, "quiet", 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("measured") / "tiny")


def child(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a double answer in the place of the real one."""
    program = f"tests.doubles.children import {name} as main; sys.exit(main()) #"

    def ask(module: str, request: Any, watch: Any, *, environment: Mapping[str, str]) -> dict[str, Any]:
        return ask_child(program, request, watch, environment={**environment, "PYTHONPATH": os.pathsep.join(sys.path)})

    monkeypatch.setattr(measured, "ask_child", ask)


def test_latency_memory_and_golden_cases(tiny: Package) -> None:
    found = measure_in_child(tiny, "cpu-fp32", LAUNCH, Bounds(30, 60.0, 4 << 30))
    assert found.reason == "" and found.calls == 30
    assert 0 < found.median_us <= found.p95_us and found.load_us > 0
    assert found.golden_ok == found.golden_cases == 16


def test_wrong_answers_are_not_timed(tmp_path: Path) -> None:
    package = make_package(tmp_path / "wrong", wrong_golden=True)
    found = measure_in_child(package, "cpu-fp32", LAUNCH, Bounds(30, 60.0))
    assert found.reason.startswith("golden: ") and found.calls == 0 and found.golden_ok < found.golden_cases


def test_an_endless_model_is_stopped(tmp_path: Path) -> None:
    found = measure_in_child(endless_package(tmp_path / "endless"), "cpu-fp32", LAUNCH, Bounds(30, 3.0))
    assert "stopped" in found.reason and found.calls == 0


def test_a_process_that_hangs_is_killed(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "hang")
    found = measure_in_child(tiny, "cpu-fp32", LAUNCH, Bounds(1, 0.5))
    assert found == Measured("it took longer than 0.5 s and was stopped")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much another process takes")
def test_a_process_that_takes_too_much_memory_is_killed(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "grow")
    found = measure_in_child(tiny, "cpu-fp32", LAUNCH, Bounds(1, 60.0, 300 << 20))
    assert "bytes of memory and was stopped; 314,572,800 are allowed" in found.reason


def test_it_gives_up_when_it_is_told_to(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "hang")
    assert measure_in_child(tiny, "cpu-fp32", LAUNCH, Bounds(1, 60.0), lambda: "needed").reason == "needed"


def test_secrets_of_the_environment_stay_here(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_BROKER_PASSWORD", "secret")
    child(monkeypatch, "tell")
    monkeypatch.setattr(measured, "_read", lambda answer: Measured(answer["reason"]))
    seen = measure_in_child(tiny, "cpu-fp32", LAUNCH, Bounds(1, 60.0)).reason.split(",")
    assert "PATH" in seen and not [name for name in seen if name.startswith("EDGE_AGENT")]


@pytest.mark.parametrize("figure", [-1, 1e300, "x", True, None])
def test_what_the_process_writes_is_not_believed_blindly(figure: object) -> None:
    answer = {"reason": "", "median_us": figure}
    assert measured._read(answer) == Measured("the process that measured it wrote no figures")
