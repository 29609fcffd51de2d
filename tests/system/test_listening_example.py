"""The example of an agent that nobody calls: real digits as pictures and as messages, a real agent without a hub.

The agent is killed in the middle. Nothing may be lost; what may come twice is what docs/reference/flows.md says.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.listening.__main__ import SETTINGS
from examples.listening.world import House, Pen, Scanner, logged, named
from tests.doubles import digits
from tests.doubles.installed import install
from tests.integration.brokers import BrokerProcess, broker_or_skip, free_port
from tests.integration.hub_process import wait_for

pytest.importorskip("PIL", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")

REPOSITORY = Path(__file__).parents[2]
EACH = 60
KILLS = 8 if os.environ.get("EDGELOOP_SOAK") else 2
#: `ahead` in the example's settings, and what the agent itself may hold while it asks.
MOST_AHEAD = 16 + 1


class Sorter:
    """The example's agent, as its settings file has it, in a folder of its own."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self.folder = folder
        shutil.copy(SETTINGS, folder)
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "EDGE_AGENT_BROKER_PORT": str(broker_port),
            "EDGE_AGENT_LISTEN_PORT": str(free_port()),
            "EDGE_AGENT_HUB": f"http://127.0.0.1:{free_port()}",
            "EDGE_AGENT_POLICY": "quiet",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "edge_agent", "run", "--config", "agent.toml"]
            self._process = subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=log, stderr=log)

    def end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(60)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)

    @property
    def results(self) -> list[dict[str, Any]]:
        return logged(self.folder / "results.jsonl")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from edgeloop.package import Package

    folder = tmp_path_factory.mktemp("digits") / "package"
    digits.build(folder)
    return Package.open(folder)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    running = broker_or_skip("mosquitto", tmp_path)
    yield running
    running.kill()


@pytest.fixture
def sorter(tmp_path: Path, package: Any, broker: BrokerProcess) -> Iterator[Sorter]:
    folder = tmp_path / "sorter-1"
    folder.mkdir()
    install(package, folder / "agent-data")
    sorter = Sorter(folder, broker.port)
    yield sorter
    sorter.close()


def test_pictures_and_messages_drive_a_model_that_nobody_calls_and_kills_lose_none(
    sorter: Sorter, broker: BrokerProcess
) -> None:
    test = digits.splits().test
    house, pen, scanner = House(broker.port), Pen(broker.port), Scanner(sorter.folder / "inbox")
    try:
        sorter.start()
        wait_for(lambda: pen.write(test.x[0], "first") and sorter.results, 90, f"the first answer\n{sorter.log}")
        wait_for(house.available, 30, "the sensors")
        truth: dict[str, str] = {}
        answered = len({named(result) for result in sorter.results})
        for part in range(KILLS + 1):
            for number in range(part * EACH, (part + 1) * EACH):
                image, label = test.x[number % len(test.x)], str(test.y[number % len(test.x)])
                scanner.scan(image, f"scan-{number}")
                assert pen.write(image, f"pen-{number}")
                truth |= {f"scan-{number}": label, f"pen-{number}": label}
            if part < KILLS:
                # Some of it is done; the rest is on its way.
                wait_for(lambda: len({named(r) for r in sorter.results}) > answered + 10, 60, f"some\n{sorter.log}")  # noqa: B023
                sorter.end(signal.SIGKILL)
                wait_for(lambda: not house.available(), 30, "the agent's will")
                answered = len({named(result) for result in sorter.results})
                sorter.start()
        wait_for(lambda: {named(r) for r in sorter.results} >= truth.keys(), 120, f"every answer\n{sorter.log}")
        wait_for(lambda: {named(r) for r in house.results()} >= truth.keys(), 60, "every answer in the house")
        wait_for(house.available, 30, "the sensors")
        assert sorter.end(signal.SIGTERM) == 0, sorter.log
        wait_for(lambda: not house.available(), 30, "the goodbye")

        results = [result for result in sorter.results if named(result) != "first"]
        times = Counter(named(result) for result in results)
        scans = {name: count for name, count in times.items() if name.startswith("scan")}
        pens = {name: count for name, count in times.items() if name.startswith("pen")}
        assert sum(scans.values()) - len(scans) <= KILLS, "a kill repeats the picture that was under way, no other"
        assert sum(pens.values()) - len(pens) <= KILLS * MOST_AHEAD, "a kill repeats what was not acknowledged"
        ids: dict[str, set[str]] = {}
        for result in results:
            ids.setdefault(named(result), set()).add(result["id"])
        assert all(len(ids[name]) == 1 for name in scans), "a picture that comes twice has the same prediction id"
        right = sum(result["state"] == truth[named(result)] for result in results)
        assert right >= 0.9 * len(results), f"{right} of {len(results)}"

        inbox = sorter.folder / "inbox"
        assert not list(inbox.glob("*.png")) and len(list((inbox / "done").glob("*.png"))) == len(scans)
        assert not list((inbox / "rejected").iterdir())
        sensors = house.sensors()
        assert {sensor["name"] for sensor in sensors.values()} == {"pictures", "pen"}
        assert all(sensor["state_topic"].startswith("listening/results/") for sensor in sensors.values())
    finally:
        pen.close()
        house.close()
