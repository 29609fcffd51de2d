"""A device measures a package for a person: a real hub, its real broker, real agents, and `model-export trial`."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import psutil
import pytest
from typer.testing import CliRunner

from edgeloop.package import Index, Package
from edgeloop.protocol import TrialReport
from edgeloop.runtime import runtime_version
from model_export import cli
from model_export.errors import DeviceTrialError
from model_export.hub import Hub
from model_export.publishing.publish import publish
from model_export.publishing.trial import measure_on_device
from tests.doubles.endless import endless_package
from tests.doubles.hostile import CONTENT, spoiled
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import HubProcess, wait_for


class World(NamedTuple):
    """A hub, and a device whose owner allows trials."""

    hub: HubProcess
    agent: AgentProcess
    package: Package

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hub.http_port}"

    def ask(self, package: Package) -> TrialReport:
        with Hub(self.url) as hub:
            return measure_on_device(package, hub, "willing", patience_s=200.0)

    def newest(self) -> dict[str, Any]:
        found = self.hub.get("trials", limit=1)
        return dict(found[0]) if found else {"report": {}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("trials")
    hub = HubProcess(folder / "hub")
    try:
        hub.start()
        place = {"hub": f"http://127.0.0.1:{hub.http_port}", "broker_port": hub.broker_port}
        agent = AgentProcess(folder / "agent", device="willing", trials=True, **place)
        try:
            agent.start()
            wait_for(lambda: hub.get("devices"), 60, "the device")
            yield World(hub, agent, make_package(folder / "package", precisions=("fp32", "int8")))
        finally:
            agent.close()
    finally:
        hub.close()


def test_a_device_says_what_each_variant_costs_and_serves_none_of_it(world: World) -> None:
    asked = ["trial", str(world.package.root), "--hub", world.url, "--device", "willing", "--patience", "200"]
    done = CliRunner().invoke(cli.app, [*asked, "--calls", "50", "--json"])
    assert done.exit_code == 0, done.output + world.agent.log
    assert "waiting until the device is idle" in done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "done" and "policy quiet" in found["facts"]["settings"]
    rows = {row["variant"]: row for row in found["rows"]}
    assert set(rows) == {"cpu-fp32", "cpu-int8"}
    for row in rows.values():
        assert row["reason"] == "" and row["calls"] == 50 and row["threads"] == 1
        assert 0 < row["median_us"] <= row["p95_us"] and row["load_us"] > 0 and row["memory_bytes"] > 0
        assert row["golden_ok"] == row["golden_cases"] == 16
    assert world.hub.get("releases") == [], "a trial is no release"
    assert world.agent.status()["release"] is None
    wait_for(lambda: not (world.agent.data / "trial").exists(), what="the files of the trial to go")
    wait_for(lambda: world.hub.get("devices/willing")["desired"]["trial"] is None, what="the wish to be taken back")


def test_a_hostile_package_is_refused_by_the_audit(world: World, tmp_path: Path) -> None:
    spoil, words = CONTENT["custom operators"]
    spoiled(world.package, tmp_path / "hostile", spoil)
    hostile = Package.open(tmp_path / "hostile", index=Index.of_folder(tmp_path / "hostile"))
    with pytest.raises(DeviceTrialError, match=f"audit: .*{words}"):
        world.ask(hostile)


def test_an_agent_that_dies_while_it_measures_does_not_measure_again(world: World, tmp_path: Path) -> None:
    """What was measured may have been what killed it. What measured ends with the agent."""
    outcome: list[str] = []

    def ask() -> None:
        try:
            world.ask(endless_package(tmp_path / "endless"))
        except DeviceTrialError as error:
            outcome.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    wait_for(lambda: world.newest()["report"].get("state") == "measuring", 60, "the device to measure")
    assert world.agent.process is not None
    children = psutil.Process(world.agent.process.pid).children(recursive=True)
    world.agent.kill()
    if sys.platform == "linux":  # elsewhere a child ends by itself, in its own time
        assert psutil.wait_procs(children, timeout=30)[1] == []
    world.agent.start()
    asking.join(200)
    assert outcome and "the agent was ended while it was measuring" in outcome[0], (outcome, world.agent.log)


def test_a_build_asks_the_fleet_what_it_reads_and_a_device_what_is_fast(world: World, tmp_path: Path) -> None:
    onnx.save(make_model(), tmp_path / "model.onnx")
    rows = np.random.default_rng(3).normal(size=(300, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=rows, label=answers(make_model(), rows)["label"])
    with Hub(world.url) as hub:
        publish(world.package, hub, "stable")
    told = lambda: (world.hub.get("devices/willing")["health"] or {}).get("runtime")  # noqa: E731
    wait_for(told, 180, lambda: f"the device to serve and to tell its runtime\n{world.agent.log}")

    asked = ["build", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out"), "--data", str(tmp_path / "data.npz")]
    asked += ["--hub", world.url, "--min-runtime", "hub", "--channel", "stable", "--name", "digits", "--no-cache"]
    asked += ["--tune", "--on-device", "willing", "--trials", "1", "--accuracy-drop", "0.5", "--json"]
    done = CliRunner().invoke(cli.app, asked)
    assert done.exit_code == 0, done.output + world.agent.log
    assert Package.open(tmp_path / "out").meta.extra["recipe"]["min_runtime"] == runtime_version()
    measured = [row for row in world.newest()["report"]["rows"] if row["variant"] == "baseline"]
    fastest = min(row["median_us"] for row in measured) / 1e3
    tuning = json.loads(done.stdout)["tuning"]
    assert tuning["baseline"]["latency_ms"] == fastest
    assert tuning["trials"][0]["why"] or tuning["trials"][0]["baseline_ms"] == fastest
