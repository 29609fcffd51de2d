"""A real HTTP door on a free loopback port, in a thread, and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.ports import FeedbackItem, FeedbackResult, LoadedRelease, OpenAudit, Recorder
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.http import Door
from edge_agent.serving.http_connection import Handler
from edge_agent.serving.repository import Repository
from edge_agent.serving.responses import error_body
from edge_agent.serving.routes import Routes
from edge_agent.serving.shared_memory import SharedMemory
from edgeloop.insights import drawn_rows
from edgeloop.package import Package
from edgeloop.runtime import ModelSession

T = TypeVar("T")


class RunningDoor:
    """A door that serves until it is closed."""

    def __init__(self, handler: Handler, max_body_bytes: int = 1 << 20, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.door = self.call(lambda: Door(handler, error_body, max_body_bytes, **options))
        self._server = asyncio.run_coroutine_threadsafe(self.door.open("127.0.0.1", 0), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def call(self, work: Callable[[], T]) -> T:
        """Run something in the door's thread."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def drain(self, timeout_s: float = 5.0) -> None:
        """An orderly stop."""
        asyncio.run_coroutine_threadsafe(self.door.drain(timeout_s), self._loop).result(timeout_s + 10)

    def close(self) -> None:
        """Whatever happens, it ends."""
        self.call(self._server.close)
        self.call(lambda: [connection.close() for connection in list(self.door.connections)])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass(frozen=True)
class Got:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection on which every byte is the test's own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._buffer = b""

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Got:
        """One whole request and its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.answer(bodyless=method == "HEAD")

    def answer(self, *, bodyless: bool = False) -> Got:
        """The next answer."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split(" ")[1])
        length = 0 if bodyless or status == 100 else int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Got(status, headers, body)

    def final_answer(self) -> Got:
        """The next answer that is more than "100 Continue"."""
        while (got := self.answer()).status == 100:
            pass
        return got

    def ended(self) -> bool:
        """Whether the other side has closed; waits for it."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

    def close(self) -> None:
        self.socket.close()

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"the connection ended after {self._buffer!r}")
        self._buffer += data


@contextlib.contextmanager
def connected(port: int) -> Iterator[Client]:
    """A client, closed at the end."""
    client = Client(port)
    try:
        yield client
    finally:
        client.close()


class NotingRecorder:
    """A recorder that remembers what it was told; it wants the outputs that it is made with."""

    def __init__(self, *wanted: str) -> None:
        self.wanted = wanted
        self.recorded: list[tuple[str, Any, dict[str, Any], int]] = []
        #: Segment, nanoseconds in all and of the run, of each.
        self.measured: list[tuple[str, int, int]] = []
        self.failed: list[str] = []
        self.segment_field: str | None = None
        self.items: list[FeedbackItem] = []
        self.audit_share = 0.0
        self.audits: list[OpenAudit] = []
        self.full = True
        self.chosen: dict[str, Any] = {}
        self.sent: list[tuple[str, str]] = []

    def drawn(self, loaded: LoadedRelease, prediction_id: str, rows: int) -> tuple[int, ...]:
        return drawn_rows(prediction_id, rows, self.audit_share)

    def open_audits(self, most: int) -> list[OpenAudit]:
        return self.audits[:most]

    def kept(self, prediction_id: str) -> list[OpenAudit]:
        return [audit for audit in self.audits if audit.id == prediction_id]

    def wanted_outputs(self, loaded: LoadedRelease) -> tuple[str, ...]:
        return self.wanted

    def in_full(self) -> bool:
        return self.full

    def choose(self, prediction_id: str, rows: Any) -> None:
        self.chosen[prediction_id] = rows

    def escalated(self, release: str, segment: str) -> None:
        self.sent.append((release, segment))

    def taught(self, items: Any) -> None:
        self.items.extend(items)

    def segment_of(self, parameters: Mapping[str, Any]) -> str:
        assert self.segment_field is not None, "nobody asks while windows are not kept apart"
        return str(parameters.get(self.segment_field, ""))

    def record(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Any,
        outputs: Any,
        places: Any,
        segment: str,
        latency_ns: int,
        run_ns: int,
    ) -> None:
        named = {name: outputs[place] for name, place in places.items()}
        self.recorded.append((prediction_id, inputs, named, latency_ns))
        self.measured.append((segment, latency_ns, run_ns))

    def record_scores(
        self, loaded: LoadedRelease, prediction_id: str, scores: Any, segment: str, latency_ns: int, run_ns: int
    ) -> None:
        assert not self.full, "what is observed in full is not observed by its scores alone"
        self.recorded.append((prediction_id, None, {self.wanted[0]: scores}, latency_ns))

    def settle(self) -> None:
        """Nothing waits."""

    def record_error(self, loaded: LoadedRelease, segment: str = "") -> None:
        self.failed.append(segment)

    @property
    def errors(self) -> int:
        return len(self.failed)

    def feedback(self, items: Any) -> FeedbackResult:
        self.items.extend(items)
        known = {recorded[0] for recorded in self.recorded}
        unknown = [item.prediction_id for item in items if item.prediction_id not in known]
        return FeedbackResult(len(items) - len(unknown), unknown, [], [])


class NotingOperations:
    """Operations that say little and remember what was done."""

    def __init__(self) -> None:
        self.flushed = 0

    def status(self) -> dict[str, Any]:
        return {"device": "test"}

    def flush(self) -> None:
        self.flushed += 1

    def metrics(self) -> tuple[bytes, str]:
        return b"edge_agent_predictions_total 1.0\n", "text/plain; version=0.0.4"


def loaded(package: Package) -> LoadedRelease:
    """A release with a session of its own."""
    variant = next(iter(package.variants))
    session = ModelSession.load(package, variant, policy="quiet")
    return LoadedRelease(package.digest, package, session, package.profile())


def load_folder(folder: Path) -> LoadedRelease:
    """What a repository loads, without an audit."""
    return loaded(Package.open(folder))


class ServingKit:
    """Data plane, routes and door over one package."""

    def __init__(
        self,
        package: Package | None,
        recorder: Recorder | None = None,
        *,
        repository: Path | None = None,
        memory: Sequence[str] = (),
        **door: Any,
    ) -> None:
        self.operations = NotingOperations()
        self.plane = DataPlane(recorder, id_prefix="kit")
        if package is not None:
            self.plane.switch(loaded(package))
        self.repository = Repository(repository, self.plane, load_folder, allowed=True)
        self.memory = SharedMemory(memory) if memory else None
        models = self.repository if repository is not None else None
        self.running = RunningDoor(Routes(self.plane, recorder, self.operations, models, self.memory), **door)
        self.port = self.running.port

    def close(self) -> None:
        self.running.close()
        self.plane.close()
