"""Real brokers as child processes on free loopback ports, for tests that run on each of them."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

_AMQTT = """
import asyncio, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def main(port):
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main(int(sys.argv[1])))
"""
_MOSQUITTO = """
user {user}
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 20
{more}
"""


def find_mosquitto() -> str | None:
    """The broker's program; Debian keeps it where an ordinary user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BrokerProcess:
    """One broker; it can be killed and started again on the same port."""

    def __init__(self, kind: str, folder: Path, port: int | None = None, more: str = "") -> None:
        self.kind = kind
        self.port = port or free_port()
        self._folder = folder
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> BrokerProcess:
        if self.kind == "mosquitto":
            config = self._folder / f"mosquitto-{self.port}.conf"
            # As root, Mosquitto would change to its own user, who cannot read the test's folder.
            config.write_text(_MOSQUITTO.format(user=getpass.getuser(), port=self.port, more=self._more))
            command = [str(find_mosquitto()), "-c", str(config)]
        else:
            command = [sys.executable, "-c", _AMQTT, str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended with {self._process.returncode} before it listened")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self.kind} did not listen within 20 s")

    @property
    def mqtt_version(self) -> int | None:
        """What to tell a link, so that it need not find out: test_link_brokers covers that once."""
        return 4 if self.kind == "amqtt" else None

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def broker_or_skip(kind: str, folder: Path, more: str = "") -> BrokerProcess:
    """A running broker of ``kind``, or a skip that says how to get it."""
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip(
            "Mosquitto is not installed; on Debian: apt-get install mosquitto, on macOS: brew install mosquitto"
        )
    if kind == "amqtt" and importlib.util.find_spec("amqtt") is None:
        pytest.skip("aMQTT is not installed; pip install 'edgeloop[hub]'")
    return BrokerProcess(kind, folder, more=more).start()
