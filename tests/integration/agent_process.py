"""A real agent as a child process, with a folder and a port of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.integration.brokers import free_port
from tests.integration.hub_process import START_EVERY_S, wait_for

FLEET = "test"


class AgentProcess:
    """``edge-agent run``; by default its hub and broker are not there, which it has to live with."""

    def __init__(self, folder: Path, *, device: str = "dev-1", **settings: object) -> None:
        self.folder, self.device = folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self.port = free_port()
        values = {
            "device": device,
            "fleet": FLEET,
            "data": self.data,
            "listen_port": self.port,
            "hub": f"http://127.0.0.1:{free_port()}",
            "broker_port": free_port(),
            "policy": "quiet",
            "window_s": 1.0,
            "checkpoint_s": 0.5,
            "report_s": 1.0,
            "probation_s": 0.3,
            "probation_min_predictions": 1,
            **settings,
        }
        self.config = folder / f"{device}.toml"
        self.config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in values.items()))
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=10.0)
        self.process: subprocess.Popen[str] | None = None

    def spawn(self, **environment: str) -> subprocess.Popen[str]:
        """Start the process, and do not wait for it."""
        with (self.folder / f"{self.device}.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )
        return self.process

    def start(self, *, ready: bool = False, **environment: str) -> AgentProcess:
        """Start it and wait until its door is open, or until a release serves."""
        process = self.spawn(**environment)
        path = "/v2/health/ready" if ready else "/v2/health/live"

        def answers() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}\n{self.log}"
            try:
                return self.http.get(path).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, 60, f"{path} of the agent\n{self.log}", START_EVERY_S)
        return self

    def status(self) -> dict[str, Any]:
        """The status document."""
        answer = self.http.get("/edgeloop/v1/status")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """An orderly end, and the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self) -> None:
        """Whatever state it is in, it ends."""
        self.http.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self.folder / f"{self.device}.log"
        return path.read_text() if path.exists() else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)
