"""A real hub as a process: it starts with everything embedded, refuses clearly, stops in order, survives SIGKILL."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from cloud_hub import exit_codes
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Topics
from edgeloop.protocol.link import Link
from tests.doubles.packages import make_package
from tests.doubles.sealed import channel_document
from tests.integration.brokers import find_mosquitto
from tests.integration.hub_process import FLEET, HubProcess, SendingDevice, wait_for

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto")
SOAK = os.environ.get("EDGELOOP_SOAK") == "1"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path / "hub")
    try:
        yield process
    finally:
        process.close()


def deploy(hub: HubProcess, package: Package, channel: str = "stable") -> str:
    files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
    digest = hub.publish(package.index.to_bytes(), files)
    answer = hub.api.post(f"/api/v1/channels/{channel}/releases", json={"digest": digest})
    assert answer.status_code == 200, answer.text
    return digest


def listen(hub: HubProcess, channel: str = "stable") -> tuple[Link, list[ChannelDocument]]:
    """A follower of a channel, and the documents that it has got."""
    found: list[ChannelDocument] = []
    link = Link("127.0.0.1", hub.broker_port, "follower", backoff_s=(0.05, 0.3))
    link.subscribe(
        Topics(FLEET).channel(channel),
        lambda _, payload: found.append(channel_document(payload)),
    )
    link.start()
    return link, found


def senders(hub: HubProcess, release: str, package: Package, count: int = 3) -> list[SendingDevice]:
    profile = package.profile()
    assert profile is not None
    return [SendingDevice(hub, f"device-{number}", release, profile).start() for number in range(count)]


def assert_totals_equal_the_ledgers(hub: HubProcess, devices: list[SendingDevice]) -> None:
    totals = hub.get("insights/totals")
    assert totals["predictions"] == sum(device.ledger["predictions"] for device in devices)
    assert totals["classes"] == np.sum([device.classes for device in devices], axis=0).tolist()
    for device in devices:
        own = hub.get(f"devices/{device.device}")["totals"]
        assert own["predictions"] == device.ledger["predictions"]
        assert (own["gaps"], own["quarantined"]) == (0, 0)
    assert hub.get("quarantine")["counts"] == {}


def test_one_command_serves_everything_and_says_where(hub: HubProcess, package: Package) -> None:
    hub.start()
    assert hub.process is not None and hub.process.stdout is not None
    said = hub.process.stdout.readline() + hub.process.stdout.readline()
    assert f"http://127.0.0.1:{hub.http_port}" in said and f"mqtt://127.0.0.1:{hub.broker_port}" in said
    assert hub.api.get("/healthz").json() == {"alive": True}
    assert hub.api.get("/docs").status_code == 200
    assert "cloud_hub_broker_connected 1.0" in hub.api.get("/metrics").text
    digest = deploy(hub, package)
    link, documents = listen(hub)
    document = wait_for(lambda: documents and documents[-1], what="the channel document")
    assert document.current.digest == digest
    assert document.hub == f"http://127.0.0.1:{hub.http_port}"
    link.stop()
    broker = hub.broker_pid
    assert hub.stop() == exit_codes.OK
    wait_for(lambda: not psutil.pid_exists(broker), 5, "the broker to end with the hub")


def run(hub: HubProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``cloud-hub serve`` to its end."""
    command = [sys.executable, "-m", "cloud_hub", "serve", "--config", str(hub.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_refuses_a_data_folder_that_is_in_use(hub: HubProcess, tmp_path: Path) -> None:
    hub.start()
    other = HubProcess(tmp_path / "other")
    done = run(other, "--data", str(hub.folder / "data"))
    other.close()
    assert done.returncode == exit_codes.DATA_IN_USE
    assert hub.process is not None and f"process {hub.process.pid}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("which", ["listen_port", "broker_port"])
def test_it_refuses_a_port_that_is_taken(tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        hub = HubProcess(tmp_path / "hub", **{which: taken.getsockname()[1]})
        done = run(hub, "--data", str(tmp_path / "data"))
        hub.close()
    assert done.returncode == exit_codes.PORT_TAKEN
    assert which in done.stderr and "Traceback" not in done.stderr


def test_it_refuses_records_that_are_damaged(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hub.db").write_bytes(b"this is no database" * 1000)
    done = run(hub, "--data", str(tmp_path / "data"))
    hub.close()
    assert done.returncode == exit_codes.DATA_UNUSABLE
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", brokr="mosquitto")
    done = run(hub, "--data", str(tmp_path / "data"))
    hub.close()
    assert done.returncode == exit_codes.SETTINGS
    assert "brokr: there is no such setting" in done.stderr


@needs_mosquitto
@pytest.mark.parametrize("seed", range(5 if SOAK else 1))
def test_totals_equal_the_ledgers_when_the_hub_is_killed_in_the_middle(
    hub: HubProcess, package: Package, seed: int
) -> None:
    chance = random.Random(seed)
    hub.start()
    devices = senders(hub, deploy(hub, package), package)
    try:
        for _ in range(4):
            until = time.monotonic() + chance.uniform(0.3, 1.2)
            while time.monotonic() < until:
                for device in devices:
                    device.close_window()
                time.sleep(0.01)
            hub.kill()
            for device in devices:  # while it is away they go on
                device.close_window()
            hub.start()
        wait_for(lambda: all(device.drained() for device in devices), 60, "every window to be acknowledged")
        assert_totals_equal_the_ledgers(hub, devices)
    finally:
        for device in devices:
            device.stop()


@needs_mosquitto
def test_totals_equal_the_ledgers_when_the_broker_is_killed(hub: HubProcess, package: Package) -> None:
    hub.start()
    digest = deploy(hub, package)
    devices = senders(hub, digest, package)
    try:
        for _ in range(4):
            for _ in range(20):
                for device in devices:
                    device.close_window()
            wait_for(lambda: psutil.pid_exists(hub.broker_pid), what="the hub to bring its broker back")
            os.kill(hub.broker_pid, signal.SIGKILL)
            time.sleep(0.3)
        wait_for(lambda: all(device.drained() for device in devices), 60, "every window to be acknowledged")
        assert_totals_equal_the_ledgers(hub, devices)
        wait_for(lambda: hub.api.get("/readyz").status_code == 200, what="the hub to be ready again")
        link, documents = listen(hub)  # the broker has forgotten everything; the hub has told it again
        wait_for(lambda: documents and documents[-1].current is not None, what="the channel document")
        link.stop()
    finally:
        for device in devices:
            device.stop()
    assert "cloud_hub_broker_restarts_total 4.0" in hub.api.get("/metrics").text


def test_the_fallback_broker_carries_a_device_too(tmp_path: Path, package: Package) -> None:
    hub = HubProcess(tmp_path / "hub", broker="amqtt")
    try:
        hub.start()
        devices = senders(hub, deploy(hub, package), package, count=2)
        for device in devices:
            for _ in range(10):
                device.close_window()
        wait_for(lambda: all(device.drained() for device in devices), 60, "every window to be acknowledged")
        assert_totals_equal_the_ledgers(hub, devices)
        for device in devices:
            device.stop()
        assert hub.stop() == exit_codes.OK
    finally:
        hub.close()


@needs_mosquitto
def test_an_orderly_stop_under_load_loses_nothing_and_is_in_time(hub: HubProcess, package: Package) -> None:
    hub.start()
    devices = senders(hub, deploy(hub, package), package)
    busy = threading.Event()

    def load() -> None:
        while not busy.wait(0.01):
            for device in devices:
                device.close_window()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        time.sleep(1.0)
        began = time.monotonic()
        assert hub.stop() == exit_codes.OK
        assert time.monotonic() - began < 15
        busy.set()
        thread.join()
        hub.start()
        wait_for(lambda: all(device.drained() for device in devices), 60, "every window to be acknowledged")
        assert_totals_equal_the_ledgers(hub, devices)
    finally:
        busy.set()
        for device in devices:
            device.stop()


def test_openapi_describes_every_address_with_examples(hub: HubProcess) -> None:
    hub.start()
    described = hub.api.get("/openapi.json").json()
    assert set(described["paths"]) >= {
        "/api/v1/devices",
        "/api/v1/blobs/{sha256}",
        "/api/v1/insights/totals",
        "/readyz",
    }
    assert "examples" in json.dumps(described)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cloud-hub.md").read_text()
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"| `{method.upper()} {path.removeprefix('/api/v1')}`" in page, f"{method} {path} is not documented"
