"""The choice between two real providers: onnxruntime's own, and OpenVINO's on any x86 processor.

Wheels of onnxruntime overwrite one another, so OpenVINO's has an environment of its own, which is made once and kept in
the cache of `benchmarks.kit.environments` (84 MB to fetch; 450 MB on the disk with numpy and what comes along).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kit.environments import CACHE, InstallError, environment
from edgeloop.package import Package
from edgeloop.runtime import EvidenceStore, Rules, Selector, runtime_version
from tests.doubles import digits
from tests.doubles.packages import make_package

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
WANTED = "EDGELOOP_OPENVINO"
#: OpenVINO's wheel lags behind: this is the newest one, and older than the package format that it has to read.
WHEEL = ["onnxruntime-openvino==1.24.1", "numpy", "safetensors", "cbor2"]
RULES = {"policy": "quiet", "time_budget_s": 0.3, "deadline_s": 240.0}


@pytest.fixture(scope="module")
def python() -> Path:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("onnxruntime-openvino has wheels for x86 alone")
    if not os.environ.get(WANTED) and not (CACHE / "openvino").is_dir():
        pytest.skip(f"set {WANTED}=1 to have onnxruntime-openvino installed in {CACHE / 'openvino'} (450 MB)")
    try:
        return environment("openvino", WHEEL)
    except InstallError as error:
        pytest.skip(f"onnxruntime-openvino cannot be installed: {error}")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("two") / "digits", precisions=("fp32", "int8"))


def choose(python: Path, package: Package, data: Path, **more: Any) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-m", "tests.integration.provider_child", str(package.root), str(data), json.dumps(RULES | more)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_both_are_right_both_are_timed_and_one_of_them_wins(python: Path, package: Package, tmp_path: Path) -> None:
    # What was measured before with another wheel is not true for this one.
    Selector(tmp_path, Rules("quiet", time_budget_s=0.05)).select(package).best.close()
    found = choose(python, package, tmp_path)
    assert found["available"] == [OPENVINO, CPU] and found["golden"]
    rows = found["table"]
    assert {(row["variant"], row["provider"]) for row in rows} == {
        (variant, provider) for variant in ("cpu-fp32", "cpu-int8") for provider in (CPU, OPENVINO)
    }
    assert all(row["ok"] and row["median_ms"] > 0 and row["runs"] and row["load_ms"] > 0 for row in rows), rows
    assert all(row["memory_bytes"] is not None for row in rows)
    winner = rows[found["chosen"]]
    assert found["provider"] == winner["provider"] and list(found["placement"]) == [winner["provider"]]
    assert f"onnxruntime: {runtime_version()} → {found['onnxruntime']}" in found["note"]
    (kept,) = EvidenceStore(tmp_path / "evidence").all()
    assert kept.release == package.digest and "OpenVINO" in kept.facts["wheel"]

    again = choose(python, package, tmp_path)
    assert again["table"] == rows and again["note"] == "", "the same machine is not measured twice"


def test_a_required_provider_runs_every_node_and_keeps_what_it_compiles(
    python: Path, package: Package, tmp_path: Path
) -> None:
    found = choose(python, package, tmp_path, required=[OPENVINO])
    assert found["provider"] == OPENVINO and found["placement"] == {OPENVINO: 5}
    assert {row["provider"] for row in found["table"]} == {OPENVINO}
    assert any(OPENVINO in line for line in found["progress"])
    blobs = list((tmp_path / "compiled").rglob(f"*{OPENVINO}/*.blob"))
    assert blobs, "OpenVINO's own cache of compiled models"


def test_a_variant_that_is_built_for_it_is_run_by_it(python: Path, tmp_path: Path) -> None:
    digits.build(tmp_path / "package", targets=("openvino",))
    package = Package.open(tmp_path / "package")
    assert {name: spec.ep for name, spec in package.variants.items()} == {"openvino-int8": OPENVINO, "cpu-fp32": CPU}
    found = choose(python, package, tmp_path, required=[OPENVINO])
    assert found["provider"] == OPENVINO and found["golden"] and list(found["placement"]) == [OPENVINO]
    (row,) = (row for row in found["table"] if row["variant"] == "openvino-int8")
    assert row["provider"] == OPENVINO and row["ok"] and row["median_ms"] > 0, row
