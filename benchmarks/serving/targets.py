"""What is compared: each target takes closed and open load, and tells its memory. All of them run all the time."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.kit.agent import agent
from benchmarks.kit.load import Clients, Load, LoadError
from benchmarks.kit.processes import Running, StartError, running
from benchmarks.kit.requests import binary, probabilities, shared_memory
from benchmarks.serving.networks import Network
from benchmarks.serving.peer import Peer
from tests.integration.brokers import free_port

LIMIT, BARE, AGENT, SHARED = "onnxruntime in process", "bare asyncio loop", "edge-agent", "edge-agent, shared memory"
#: Connections on which open load waits for its answers.
_OPEN_CONNECTIONS = 64
_SEED = 20
_READY_S = 180.0
#: Bytes of a row below which shared memory saves nothing.
_WORTH_SHARING = 1 << 16
#: One thread on each core can run at once; what more arrives waits, for the agent as in process.
_CORES = os.cpu_count() or 1


class Target(Protocol):
    """Something that answers."""

    name: str
    pid: int

    def closed(self, connections: int, seconds: float) -> Load:
        """Load by clients that wait for their answers."""

    def open(self, per_second: float, seconds: float, seed: int) -> Load:
        """Load by clients that do not wait."""


def closed(target: Target, *, connections: int, seconds: float) -> Load:
    """A turn of closed load."""
    return target.closed(connections, seconds)


def opened(target: Target, *, per_second: float, seconds: float) -> Load:
    """A turn of open load, the same for every target."""
    return target.open(per_second, seconds, _SEED)


@dataclass
class HttpTarget:
    """A server on loopback."""

    name: str
    pid: int
    port: int
    request: bytes

    def closed(self, connections: int, seconds: float) -> Load:
        """Connections are new each time: some servers close one that was idle while the others had their turns."""
        with Clients(self.port, connections, self.request) as clients:
            return clients.run(seconds)

    def open(self, per_second: float, seconds: float, seed: int) -> Load:
        """Requests at random moments, the same ones for the same seed."""
        with Clients(self.port, _OPEN_CONNECTIONS, self.request) as clients:
            return clients.arrive(per_second, seconds, seed)

    def check(self, expected: np.ndarray) -> None:
        """Ask once, and compare.

        Raises:
            OSError: nobody listens yet.
            LoadError: it does not answer, or answers something else than the network does.
        """
        with Clients(self.port, 1, self.request) as clients:
            found = probabilities(*clients.answer)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-4):
            raise LoadError(f"it answers {found}, not {expected}")


class InProcess:
    """onnxruntime in a process of its own, called by as many threads as there would be connections."""

    name = LIMIT

    def __init__(self, process: Running) -> None:
        self._process, self.pid = process, process.pid

    def closed(self, connections: int, seconds: float) -> Load:
        """That many threads, each of which runs all the time."""
        return self._order(threads=connections, seconds=seconds)

    def open(self, per_second: float, seconds: float, seed: int) -> Load:
        """One thread for each core."""
        return self._order(threads=_CORES, seconds=seconds, per_second=per_second, seed=seed)

    def _order(self, **order: float) -> Load:
        return Load(**json.loads(self._process.ask(json.dumps(order))))


@contextmanager
def in_process(network: Network) -> Iterator[Target]:
    """The limit."""
    with running([sys.executable, "-m", "benchmarks.kit.in_process", str(network.onnx)]) as process:
        process.line()
        yield InProcess(process)


@contextmanager
def bare_loop(network: Network) -> Iterator[Target]:
    """Thirty lines of asyncio that check nothing."""
    port = free_port()
    with running([sys.executable, "-m", "benchmarks.kit.bare", str(network.onnx), str(port)]) as process:
        process.line()
        target = HttpTarget(BARE, process.pid, port, binary("/", network.input, network.row))
        target.check(network.expected)
        yield target


@contextmanager
def our_agent(network: Network, python: Path, folder: Path) -> Iterator[list[Target]]:
    """The agent as a device installs it, asked over HTTP; where a row is large, through shared memory as well."""
    path = f"/v2/models/{network.name}/infer"
    settings: dict[str, object] = {"instances": _CORES, "shared_memory": [f"/{_Region.prefix}"]}
    with agent(folder / f"agent-{network.name}", network.package, python=str(python), **settings) as server:
        target = HttpTarget(AGENT, server.pid, server.port, binary(path, network.input, network.row))
        target.check(network.expected)
        if network.row.nbytes < _WORTH_SHARING:
            yield [target]
            return
        with _Region(server.port, network.row) as region:
            request = shared_memory(path, network.input, network.row, region.name)
            shared = HttpTarget(SHARED, server.pid, server.port, request)
            shared.check(network.expected)
            yield [target, shared]


def peer(found: Peer, process: Running, port: int, network: Network) -> Target:
    """A peer that has been started, once it answers.

    Raises:
        StartError: it ended, or does not answer as the network does.
    """
    request = found.encoder(found.path, network.input, network.row)
    target, end = HttpTarget(found.name, process.pid, port, request), time.monotonic() + _READY_S
    while True:
        try:
            target.check(network.expected)
            return target
        except (OSError, LoadError, KeyError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
        if not process.alive or time.monotonic() > end:
            raise StartError(f"{why}; {process.why()}")
        time.sleep(0.25)


class _Region:
    """A file in memory that holds one row, and that the agent knows by a name."""

    name, prefix = "row", "edgeloop-bench-"

    def __init__(self, port: int, row: np.ndarray) -> None:
        self._base = f"http://127.0.0.1:{port}/v2/systemsharedmemory/region/{self.name}"
        self._file = Path(f"/dev/shm/{self.prefix}{os.getpid()}")
        self._file.write_bytes(row.tobytes())

    def __enter__(self) -> _Region:
        try:
            self._post("register", {"key": f"/{self._file.name}", "offset": 0, "byte_size": self._file.stat().st_size})
        except BaseException:
            self._file.unlink()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the agent may have ended
            self._post("unregister", {})
        self._file.unlink()

    def _post(self, verb: str, body: dict[str, object]) -> None:
        request = urllib.request.Request(f"{self._base}/{verb}", json.dumps(body).encode(), method="POST")
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            raise StartError(f"the agent refuses to {verb} a region: {error.read().decode()[:300]}") from error
