"""A real agent whose providers change under it: it goes on serving, and what changed is to be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import exit_codes
from edgeloop.package import Package
from edgeloop.runtime import CPU, EvidenceStore, isolated, trying
from edgeloop.runtime.choosing import CRASHED
from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.doubles.plain_hub import PlainHub
from tests.doubles.provider_double import PROVIDER
from tests.doubles.provider_fixture import BROKEN, doubled
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import wait_for
from tests.integration.test_update_life import Device
from tests.integration.update_child import settings

__all__ = ["doubled"]

ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("agent-providers") / "package")


@pytest.fixture
def agents(tmp_path: Path, package: Package) -> Iterator[Callable[..., AgentProcess]]:
    made: list[AgentProcess] = []

    def make(**settings: object) -> AgentProcess:
        made.append(AgentProcess(tmp_path / "agent", **settings))
        return made[-1]

    install(package, tmp_path / "agent" / "data")
    yield make
    for agent in made:
        agent.close()


def with_double(mood: str) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(BROKEN), str(Path.cwd())]), "DOUBLE": mood}


def serves(agent: AgentProcess) -> dict[str, Any]:
    assert agent.http.post("/v2/models/digits/infer", json=ROW).status_code == 200
    return agent.status()


def test_a_required_provider_that_appears_is_switched_to_and_noted(agents: Callable[..., AgentProcess]) -> None:
    agent = agents().start(ready=True)
    assert serves(agent)["provider"] == CPU
    wait_for(lambda: agent.status()["providers"]["table"], 60, "the first table")
    assert agent.stop() == 0

    agent = agents(required_providers=[PROVIDER]).start(ready=True, **with_double("fine"))
    wait_for(lambda: serves(agent)["provider"] == PROVIDER, 120, f"the required provider\n{agent.log}")
    seen = agent.status()
    assert seen["placement"] == {PROVIDER: 5} and seen["providers"]["trouble"] == ""
    assert f"on {PROVIDER}, 1 thread instead of cpu-fp32 on {CPU}" in seen["providers"]["note"]
    assert agent.stop() == 0

    again = agents(required_providers=[PROVIDER]).start(ready=True, **with_double("fine"))
    seen = serves(again)
    assert seen["provider"] == PROVIDER and "measured again" in seen["providers"]["note"], "the table is believed"
    assert again.stop() == 0


def test_a_driver_that_kills_the_agent_does_so_once(agents: Callable[..., AgentProcess], package: Package) -> None:
    agent = agents()
    process = agent.spawn(**with_double("crash here"))
    assert process.wait(120) == -11, "it serves, measures what is new, and dies of it"
    agent = agents().start(ready=True, **with_double("crash here"))

    def table() -> list[dict[str, Any]]:
        return list(serves(agent)["providers"]["table"])

    rows = {row["provider"]: row for row in wait_for(table, 120, f"the table\n{agent.log}")}
    assert rows[CPU]["chosen"] and rows[PROVIDER]["reason"] == CRASHED
    assert agent.stop() == 0
    third = agents().start(ready=True, **with_double("crash here"))
    assert serves(third)["provider"] == CPU
    assert third.stop() == 0


def test_a_provider_that_compiles_for_long_is_never_silent(
    tmp_path: Path, package: Package, doubled: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled("late")
    monkeypatch.setattr(isolated, "PROGRESS_S", 0.1)
    monkeypatch.setattr(trying, "PROGRESS_S", 0.1)
    hub = PlainHub()
    device = Device(tmp_path / "device", settings(tmp_path / "device"))
    told: set[str] = set()

    class Reporter:
        def report(self) -> None:
            at = device.machine.status()
            told.add(f"{at.state}: {at.reason}")

    try:
        device.machine.report_to(Reporter())
        device.machine.follow(hub.offer(package))
        device.wait(lambda: device.machine.committed() == package.digest, 120)
    finally:
        device.stop()
        hub.close()
    said = [line for line in told if line.startswith("testing: ") and line.endswith(" s so far")]
    assert any("is tried on" in line for line in said) and any("is loaded on" in line for line in said), told
    (known,) = EvidenceStore(tmp_path / "device" / "evidence").all()
    assert {row.provider for row in known.table} == {CPU, PROVIDER}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("gpu_memory = 1", "CUDAExecutionProvider has no option 'gpu_memory'; did you mean gpu_mem_limit?"),
        ('gpu_mem_limit = "all"', "CUDAExecutionProvider.gpu_mem_limit has to be a whole number, not 'all'"),
    ],
)
def test_a_wrong_option_is_an_error_of_the_settings(agents: Callable[..., AgentProcess], lines: str, said: str) -> None:
    agent = agents()
    agent.config.write_text(f"{agent.config.read_text()}\n[providers.CUDAExecutionProvider]\n{lines}\n")
    assert agent.spawn().wait(60) == exit_codes.SETTINGS
    assert said in agent.log and str(agent.config) in agent.log
