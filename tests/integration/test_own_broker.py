"""A Mosquitto that is not the hub's child goes by what `cloud-hub broker-config mosquitto` writes."""

from __future__ import annotations

import getpass
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import MQTTv5
from typer.testing import CliRunner

from cloud_hub.cli import app
from edge_agent.identity import Identity, tls_context
from edge_agent.identity.enrol import enrol
from edgeloop.protocol.enrolment import EnrolmentToken
from tests.doubles.mqtt_attacker import MqttAttacker, wait_until
from tests.integration.brokers import find_mosquitto, free_port
from tests.integration.hub_process import wait_for
from tests.unit.hub.api_kit import ApiHub

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")
ROOT = "edgeloop/v1/default"
#: Hands the change to whoever looks after the broker, and returns when it is done.
COMMAND = """#!/bin/sh
set -eu
cd {folder}
echo "$EDGELOOP_CHANGE" > asked.new
mv asked.new asked
while [ -e asked ]; do sleep 0.02; done
"""


class Keeper:
    """Looks after a Mosquitto, as a service manager and an operator would: copies the files, reloads, restarts."""

    def __init__(self, folder: Path, data: Path, port: int) -> None:
        self.out, self.port, self.changes = folder / "out", port, list[str]()
        self._folder, self._data = folder, data
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._copy()
        self._launch()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._end()

    def _run(self) -> None:
        asked = self._folder / "asked"
        while not self._stop.wait(0.02):
            if not asked.exists():
                continue
            change = asked.read_text().strip()
            self._copy()
            if change == "restart":
                self._end()
                self._launch()
            elif self._process is not None:
                self._process.send_signal(signal.SIGHUP)
            self.changes.append(change)
            asked.unlink()

    def _copy(self) -> None:
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--user", getpass.getuser()]
        command = ["broker-config", "mosquitto", "--data", str(self._data), "--out", str(self.out), *address]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            [str(find_mosquitto()), "-c", str(self.out / "mosquitto.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ApiHub]:
    script, port = tmp_path / "reload", free_port()
    script.write_text(COMMAND.format(folder=tmp_path))
    script.chmod(0o700)
    hub = ApiHub(tmp_path / "data", insecure=False, broker_port=port, broker_reload_command=str(script))
    hub.clock.now = time.time()  # certificates are made by the system's
    yield hub
    hub.close()


def enrolled(hub: ApiHub, folder: Path, name: str) -> Identity:
    token = hub.post("enrolments", {"device": name}, 201)["token"]
    return enrol(folder, name, str(hub.http.base_url), EnrolmentToken.parse(token))


def let_in(identity: Identity) -> MqttAttacker | None:
    client = MqttAttacker(identity.broker_port, tls_context(identity), MQTTv5)
    return client if client.try_to_connect() else None


def works(identity: Identity) -> bool:
    """Whether what it says on its own topic comes back to nobody but is taken: MQTT 5 tells of a refusal."""
    client = let_in(identity)
    if client is None:
        return False
    reasons: list[bool] = []
    client.client.on_publish = lambda _c, _d, _mid, reason, _p: reasons.append(not reason.is_failure)
    client.publish(f"{ROOT}/d/{identity.device}/reported", b"x")
    wait_until(lambda: bool(reasons) or client.ended)
    client.close()
    return bool(reasons) and reasons[0]


def test_it_knows_who_was_enrolled_and_who_was_revoked(hub: ApiHub, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, hub.hub.settings.data, hub.hub.settings.broker_port)
    keeper.start()
    try:
        assert {stat.S_IMODE(file.stat().st_mode) for file in keeper.out.iterdir() if file.suffix != ".conf"} == {0o600}
        one, two = enrolled(hub, tmp_path / "1", "cam-1"), enrolled(hub, tmp_path / "2", "cam-2")
        assert keeper.changes == ["reload", "reload"]
        wait_until(lambda: works(one) and works(two))
        held = wait_for(lambda: let_in(one), what="a connection")
        hub.post("devices/cam-1/revoke", {"reason": "gone"}, 204)
        assert keeper.changes[-1] == "restart"
        wait_until(lambda: held.ended)
        wait_until(lambda: works(two))
        assert let_in(one) is None
        held.close()
    finally:
        keeper.stop()


def test_a_broker_that_cannot_be_told_is_said_to_the_caller(tmp_path: Path) -> None:
    hub = ApiHub(tmp_path / "data", insecure=False, broker_reload_command="false")
    try:
        token = EnrolmentToken.parse(hub.post("enrolments", {"device": "cam-1"}, 201)["token"])
        with pytest.raises(Exception, match="the broker could not be told of new rights"):
            enrol(tmp_path / "1", "cam-1", str(hub.http.base_url), token)
    finally:
        hub.close()


def test_without_a_hub_that_was_ever_secure_there_is_nothing_to_write(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["broker-config", "mosquitto", "--data", str(tmp_path)])
    assert done.exit_code == 8
    assert "is not there yet" in done.output
