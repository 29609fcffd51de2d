"""Reload under load: a real agent is asked over several connections while its release is switched again and again.

No request fails, and memory is afterwards what it was before. The releases are loaded as at a start, with their golden
cases, and switched as an update does; only fetching and probation are left out, since they have tests of their own.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.doubles.installed import install
from tests.doubles.packages import make_package, new_head
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import wait_for

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
SWITCHES = 1000 if SOAK else 30
#: Before memory is measured the first time: caches of the interpreter, of onnxruntime and of SQLite, and what the
#: allocator keeps, are there then. They grow by 2 to 4 % over the first 600 switches under load, and little after that.
SETTLING = 600 if SOAK else 30
CONNECTIONS = 4
#: Of memory before; and what a few pages more or less are in a short form, bytes.
MOST_GROWTH, NOISE_BYTES = 1.05, 0 if SOAK else 4 << 20


class Client(threading.Thread):
    """One connection that asks without a pause, and notes how each answer came out."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int | str] = Counter()
        self.versions: Counter[str] = Counter()
        self.end = threading.Event()
        self._port = port

    def run(self) -> None:
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]})
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self.end.is_set():
            try:
                connection.request("POST", "/v2/models/digits/infer", body)
                answer = connection.getresponse()
                found = json.loads(answer.read())
                self.statuses[answer.status] += 1
                self.versions[found.get("model_version", "")] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.statuses[f"{type(error).__name__}: {error}"] += 1
                connection.close()
        connection.close()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux 4.14 or newer, which has it")
@pytest.mark.timeout(1800)
def test_no_request_fails_and_no_memory_is_lost_while_releases_are_switched(tmp_path: Path) -> None:
    # Predictions that wait for their labels fill up with load, not with switches: here they are full before it begins.
    agent = AgentProcess(tmp_path / "agent", feedback_keep=256)
    first = make_package(tmp_path / "one")
    for package in (first, new_head(first, tmp_path / "two", "2")):
        install(package, agent.data)
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.system.reload_child", str(agent.config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    clients = [Client(agent.port) for _ in range(CONNECTIONS)]
    try:
        assert child.stdin is not None and child.stdout is not None
        assert "serves http://" in child.stdout.readline(), (tmp_path / "log").read_text()
        for client in clients:
            client.start()

        def tell(command: str) -> int:
            child.stdin.write(f"{command}\n")
            child.stdin.flush()
            return int(child.stdout.readline())

        tell(str(SETTLING))
        before = tell("memory")
        answered = sum(client.statuses.total() for client in clients)
        tell(str(SWITCHES))
        after = tell("memory")
        wait_for(lambda: all(client.statuses.total() > 10 for client in clients))
    finally:
        for client in clients:
            client.end.set()
        for client in clients:
            if client.ident is not None:
                client.join(30)
        child.terminate()
        child.wait(30)
        agent.close()
    statuses = sum((client.statuses for client in clients), Counter[int | str]())
    versions = sum((client.versions for client in clients), Counter[str]())
    assert set(statuses) == {200}, statuses
    assert set(versions) == {"1", "2"}, versions
    assert statuses[200] > answered, "there was load while it switched"
    print(f"{SWITCHES} switches, {statuses[200]} answers, {before:,} bytes before and {after:,} after")
    assert after <= before * MOST_GROWTH + NOISE_BYTES, f"{before:,} bytes before, {after:,} after {SWITCHES} switches"
