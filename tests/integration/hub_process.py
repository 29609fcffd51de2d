"""A real hub as a child process, and senders that speak to it through its real broker."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from edgeloop.insights import Observer, Profile, Window
from edgeloop.protocol import Ack, Insights, Topics
from edgeloop.protocol.link import Link
from tests.integration.brokers import free_port

FLEET = "test"


#: Between two looks whether a program that starts is ready, which it stays: looks take the processor that it needs.
START_EVERY_S = 0.1


def wait_for(
    condition: Callable[[], Any],
    timeout_s: float = 30.0,
    what: str | Callable[[], str] = "it",
    every_s: float = 0.02,
) -> Any:
    """The first true value of ``condition``; ``what`` is called when it did not come, so that a log is a whole one."""
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() >= until:
            raise AssertionError(f"waited {timeout_s} s for {what if isinstance(what, str) else what()}")
        time.sleep(every_s)
    return value


class HubProcess:
    """``cloud-hub serve`` with a folder and ports of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.broker_port = free_port(), free_port()
        values = {
            "fleet": FLEET,
            "listen_port": self.http_port,
            "broker": "auto",
            "broker_port": self.broker_port,
            "insights_interval_s": 1.0,
            **settings,
        }
        self.broker_port = int(str(values["broker_port"]))
        self.config = folder / "hub.toml"
        self.config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in values.items()))
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=20.0)
        self.process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}

    def spawn(self) -> subprocess.Popen[str]:
        """Start the process, and do not wait for it."""
        command = [sys.executable, "-m", "cloud_hub", "serve", "--config", str(self.config)]
        with (self.folder / "hub.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.folder / "data")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
            )
        return self.process

    def start(self) -> HubProcess:
        """Start the process and wait until it is ready."""
        process = self.spawn()

        def ready() -> bool:
            assert process.poll() is None, self.log
            try:
                return self.api.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, 60, f"the hub to be ready\n{self.log}", START_EVERY_S)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self) -> None:
        """Whatever state it is in, it ends."""
        self.api.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self.folder / "hub.log"
        return path.read_text() if path.exists() else ""

    @property
    def broker_pid(self) -> int:
        """The process id of its embedded broker."""
        return int((self.folder / "data" / "broker" / "broker.pid").read_text())

    def get(self, path: str, **query: Any) -> Any:
        """GET below /api/v1, decoded."""
        answer = self.api.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def publish(self, package_index: bytes, files: dict[str, bytes]) -> str:
        """Publish a release whose files are given by sha256; returns its digest."""
        missing = self.api.post("/api/v1/releases/missing", content=package_index).json()
        for sha256 in missing["missing"]:
            assert self.api.put(f"/api/v1/blobs/{sha256}", content=files[sha256]).status_code == 201
        answer = self.api.post("/api/v1/releases", content=package_index)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["digest"])


class SendingDevice:
    """A device with an outbox and a ledger that sends until every window is acknowledged."""

    def __init__(
        self, hub: HubProcess, device: str, release: str, profile: Profile, *, channel: str = "stable"
    ) -> None:
        self.device, self.release, self.profile, self.channel = device, release, profile, channel
        self.ledger: Counter[str] = Counter()
        self.classes = np.zeros(profile.schema.classes, np.int64)
        self.outbox: dict[int, Window] = {}
        self._next, self._lock = 1, threading.Lock()
        self._epoch = int.from_bytes(hashlib.sha256(device.encode()).digest()[:6], "big")
        self._random = np.random.default_rng(abs(hash(device)) % 2**32)
        self._topics = Topics(FLEET)
        self.link = Link("127.0.0.1", hub.broker_port, device, backoff_s=(0.05, 0.3))
        self.link.subscribe(self._topics.ack(device), self._acknowledged)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=device, daemon=True)

    def start(self) -> SendingDevice:
        """Connect, and send whatever the outbox holds, again and again."""
        self.link.start()
        self._thread.start()
        return self

    def close_window(self) -> None:
        """One more window into ledger and outbox."""
        window = self._window(int(self._random.integers(1, 30)))
        with self._lock:
            self.outbox[self._next] = window
            self._next += 1
            self.ledger["predictions"] += window.predictions
            self.classes += window.arrays["classes"]

    def drained(self) -> bool:
        """Whether everything is acknowledged."""
        with self._lock:
            return not self.outbox

    def stop(self) -> None:
        """Stop sending."""
        self._stop.set()
        self._thread.join(10)
        self.link.stop(1.0)

    def _window(self, rows: int) -> Window:
        schema, profile = self.profile.schema, self.profile
        now = time.time()
        window = Window.zero(schema, self.release, "cpu-fp32", "CPUExecutionProvider", now - 1, now)
        inputs = self._random.normal(size=(rows, profile.input_width)).astype(np.float32)
        probabilities = self._random.dirichlet(np.ones(schema.classes), rows)
        features = self._random.normal(size=(rows, schema.features)) if schema.features else None
        Observer(profile).observe(window, inputs, probabilities, features, np.full(rows, 1_000_000))
        return window

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                waiting = sorted(self.outbox.items())[:20]
            for number, window in waiting:
                message = Insights(
                    self.device, self._epoch, number, number, waiting[0][0], window.to_wire(), self.channel
                )
                self.link.publish(self._topics.insights(self.device), message.to_bytes())
            self._stop.wait(0.1)

    def _acknowledged(self, _topic: str, payload: bytes) -> None:
        ack = Ack.from_bytes(payload)
        assert not ack.refused
        with self._lock:
            for number in [number for number in self.outbox if number <= ack.last]:
                del self.outbox[number]


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str | Path) else str(value)
