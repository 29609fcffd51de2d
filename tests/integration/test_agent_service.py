"""A real agent under a service manager: what it says at its socket, its watchdog, and SIGHUP."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import wait_for


class Manager:
    """systemd's end of the socket: keeps every datagram as it came."""

    def __init__(self) -> None:
        self.address = f"@edgeloop-test-{os.getpid()}-{id(self)}"
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:])
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := self._socket.recv(4096):
            self.said.append(data.decode())

    def wait_for(self, start: str, times: int = 1) -> str:
        wait_for(lambda: len(self.all(start)) >= times, 30, f"{start} in {self.said}")
        return self.all(start)[-1]

    def all(self, start: str) -> list[str]:
        return [line for line in self.said if line.startswith(start)]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", "\0" + self.address[1:])


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.close()


@pytest.fixture
def agent(tmp_path: Path, manager: Manager) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    install(make_package(tmp_path / "one"), agent.data)
    agent.start(ready=True, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="600000")
    yield agent
    agent.close()


def test_a_life_as_the_service_manager_sees_it(agent: AgentProcess, manager: Manager) -> None:
    manager.wait_for("READY=1")
    assert manager.wait_for("STATUS=").startswith("STATUS=serves; committed: ")
    manager.wait_for("WATCHDOG=1", 4)
    assert agent.stop() == 0
    manager.wait_for("STOPPING=1")
    assert manager.said.index("READY=1") < manager.said.index("STOPPING=1")


def test_sighup_reads_the_settings_again(agent: AgentProcess, manager: Manager) -> None:
    assert agent.process is not None
    good = agent.config.read_text()
    agent.config.write_text(good + 'channel = "night"\nlog_level = "debug"\nmax_waiting = 7\n')
    agent.process.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("RELOADING=1\n")
    assert reloading.splitlines()[1].removeprefix("MONOTONIC_USEC=").isdecimal()
    manager.wait_for("READY=1", 2)
    assert agent.status()["messaging"]["channel"] == "night"
    assert "channel, log_level" in agent.log and "settings=max_waiting" in agent.log

    for wrong in (good + "probation_s = -1\n", good + "no_such_setting = 1\n", "not TOML"):
        before = len(manager.all("READY=1"))
        agent.config.write_text(wrong)
        agent.process.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1", before + 1)
        assert agent.status()["messaging"]["channel"] == "night"
    assert agent.log.count("the settings are wrong; nothing has changed") == 3

    agent.config.write_text(good)
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.status()["messaging"]["channel"] == "stable")
    assert agent.stop() == 0


def test_without_a_service_manager_sighup_works_as_well(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent").start()
    try:
        assert agent.process is not None
        agent.config.write_text(agent.config.read_text() + 'channel = "night"\n')
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.status()["messaging"]["channel"] == "night")
        assert agent.stop(signal.SIGINT) == 0
    finally:
        agent.close()


def test_an_agent_over_its_memory_budget_serves_and_holds_back(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent", max_memory_bytes=1)
    install(make_package(tmp_path / "one"), agent.data)
    try:
        agent.start(ready=True)
        assert agent.process is not None
        assert "max_memory_bytes 1" in agent.status()["strain"]
        assert agent.http.get("/v2/models/digits/ready").status_code == 200
        agent.config.write_text(agent.config.read_text().replace("max_memory_bytes = 1", "max_memory_bytes = 0"))
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.status()["strain"] == "")
        assert agent.stop() == 0
    finally:
        agent.close()
