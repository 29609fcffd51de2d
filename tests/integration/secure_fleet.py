"""A hub with certificates, and agents that enrol at it: real processes, mutual TLS, Mosquitto."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import find_mosquitto
from tests.integration.hub_process import HubProcess

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")


class SecureHub(HubProcess):
    """``cloud-hub serve`` with ``insecure = false``."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(folder, **settings)
        self.environment = {"CLOUD_HUB_INSECURE": "false"}
        self.data = folder / "data"
        self.url = f"https://127.0.0.1:{self.http_port}"
        self._forget_rights()

    def start(self) -> SecureHub:
        """Start it, and from then on trust its own authority alone, with the right of its own machine."""
        self._forget_rights()
        super().start()
        self.api.close()
        door = json.loads((self.data / "local.json").read_text())
        self.api = httpx.Client(
            base_url=self.url,
            timeout=20.0,
            verify=ssl.create_default_context(cafile=str(self.data / "identity" / "ca.crt")),
            headers={"Authorization": f"Bearer {door['token']}"},
        )
        return self

    def _forget_rights(self) -> None:
        """Ask as a stranger: the right of the machine is another one at each start."""
        self.api.close()
        self.api = httpx.Client(base_url=self.url, timeout=20.0, verify=False)  # until it has a certificate

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of ``cloud-hub`` beside the running hub."""
        return subprocess.run(
            [sys.executable, "-m", "cloud_hub", *arguments, "--config", str(self.config), "--data", str(self.data)],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=60,
            check=False,
        )

    def token(self, **wanted: Any) -> str:
        """A fresh enrolment token."""
        answer = self.api.post("/api/v1/enrolments", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


class SecureAgent(AgentProcess):
    """``edge-agent`` with ``insecure = false``; what it is told of the hub is its enrolment."""

    def __init__(self, folder: Path, *, device: str = "dev-1", **settings: object) -> None:
        super().__init__(folder, device=device, **settings)
        ours = ("fleet", "hub", "broker_port")
        lines = self.config.read_text().splitlines(keepends=True)
        self.config.write_text("".join(line for line in lines if line.split(" = ")[0] not in ours))

    def spawn(self, **environment: str) -> subprocess.Popen[str]:
        """Start the process, and do not wait for it."""
        return super().spawn(EDGE_AGENT_INSECURE="false", **environment)

    def enrol(self, hub: str, token: str, *more: str) -> subprocess.CompletedProcess[str]:
        """``edge-agent enrol``."""
        command = [sys.executable, "-m", "edge_agent", "enrol", "--config", str(self.config)]
        return subprocess.run(
            [*command, "--hub", hub, "--token", token, *more],
            capture_output=True,
            text=True,
            env={**os.environ, "EDGE_AGENT_INSECURE": "false"},
            timeout=60,
            check=False,
        )
