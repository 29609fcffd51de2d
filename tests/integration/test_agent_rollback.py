"""``edge-agent rollback`` as people use it: with a running agent, without one, and where it cannot work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import exit_codes
from edgeloop.package import Package
from tests.doubles.installed import install
from tests.doubles.packages import make_package, new_head
from tests.integration.agent_process import AgentProcess


@pytest.fixture
def two(tmp_path: Path) -> tuple[Package, Package]:
    first = make_package(tmp_path / "one")
    return first, new_head(first, tmp_path / "two", "2")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    yield agent
    agent.close()


def rollback(agent: AgentProcess, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "edge_agent", "rollback", "--config", str(agent.config), *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_the_running_agent_goes_back(agent: AgentProcess, two: tuple[Package, Package]) -> None:
    first, second = (install(package, agent.data) for package in two)
    agent.start(ready=True)
    assert agent.status()["serving"] == second
    done = rollback(agent, "--json", "--reason", "it counts wrong")
    assert done.returncode == exit_codes.OK, done
    found = json.loads(done.stdout)
    assert (found["left"], found["release"], found["running"]) == (second, first, True)
    status = agent.status()
    assert status["serving"] == status["release"] == first and status["previous"] is None
    assert status["update"]["state"] == "rolled_back" and "it counts wrong" in status["update"]["reason"]
    again = rollback(agent)
    assert again.returncode == exit_codes.NOTHING_BEFORE and "no release is kept" in again.stderr
    assert agent.http.post("/edgeloop/v1/rollback", json={}).status_code == 403, "not without the operator's key"
    wrong = agent.http.post("/edgeloop/v1/rollback", json={}, headers={b"Edgeloop-Key": "é".encode()})
    assert wrong.status_code == 403 and (agent.data / "operator.key").stat().st_mode & 0o077 == 0
    assert agent.http.post("/edgeloop/v1/rollback", json={"reason": 3}).status_code == 400
    assert agent.http.post("/edgeloop/v1/rollback", content=b"no").status_code == 400
    assert agent.http.get("/edgeloop/v1/rollback").status_code == 405


def test_without_an_agent_it_works_on_the_data_folder(agent: AgentProcess, two: tuple[Package, Package]) -> None:
    first, second = (install(package, agent.data) for package in two)
    (agent.data / "lock").touch()
    done = rollback(agent)
    assert done.returncode == exit_codes.OK, done
    assert f"left {second}" in done.stdout and "at its next start" in done.stdout
    assert rollback(agent).returncode == exit_codes.NOTHING_BEFORE
    agent.start(ready=True)
    assert agent.status()["serving"] == first


def test_where_there_was_never_an_agent(agent: AgentProcess) -> None:
    done = rollback(agent)
    assert done.returncode == exit_codes.NOTHING_BEFORE and "no agent has ever run" in done.stderr


def test_an_agent_that_does_not_answer_keeps_its_folder(agent: AgentProcess, two: tuple[Package, Package]) -> None:
    first, second = (install(package, agent.data) for package in two)
    agent.start(ready=True)
    agent.config.write_text(agent.config.read_text().replace(f"listen_port = {agent.port}", "listen_port = 9"))
    done = rollback(agent)
    assert done.returncode == exit_codes.NO_AGENT and "does not answer" in done.stderr
    assert agent.status()["serving"] == second != first
