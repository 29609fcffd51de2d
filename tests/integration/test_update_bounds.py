"""An update within its bounds: bandwidth, a hub that asks for patience, the disk quota, a device under strain."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.serving.dataplane import DataPlane
from edge_agent.updates import UpdateMachine
from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.space import used_bytes
from edgeloop.package import Package
from edgeloop.runtime import extensions
from tests.doubles.packages import make_package, new_head
from tests.doubles.plain_hub import PlainHub
from tests.integration.test_update_life import Device
from tests.integration.update_child import settings


@pytest.fixture
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


def test_a_slow_line_is_enough_and_may_be_widened_while_it_is_used(tmp_path: Path, hub: PlainHub) -> None:
    own = settings(tmp_path / "device")
    limits = FetchLimits(1 << 30, 0, max_bytes_per_s=1)
    device = Device(tmp_path / "device", dataclasses.replace(own, limits=limits))
    package = make_package(tmp_path / "one")
    device.machine.follow(hub.offer(package))
    index = len(package.index.to_bytes())
    device.wait(lambda: device.machine._preparing.fetched_bytes > index)
    asked = len(hub.requests)
    time.sleep(0.3)
    assert len(hub.requests) == asked == 2, "a byte a second: it is at its first file for half an hour"
    device.machine.use(own)
    device.wait_committed(package)
    device.stop()


def test_a_hub_that_asks_for_patience_gets_it(tmp_path: Path, hub: PlainHub) -> None:
    device = Device(tmp_path / "device")
    package = make_package(tmp_path / "one")
    document = hub.offer(package)
    hub.busy_s = 400
    device.machine.follow(document)
    reason = device.wait_state("fetching", "HTTP 503")
    assert int(reason.rpartition("again in ")[2].removesuffix(" s")) >= 400
    hub.busy_s = None
    device.machine.follow(hub.offer(package, serial=2))  # a new document ends every wait
    device.wait_committed(package)
    device.stop()


def test_the_quota_is_kept_by_collecting_and_else_said(tmp_path: Path, hub: PlainHub) -> None:
    data = tmp_path / "device"
    own, first = settings(data), make_package(tmp_path / "one")
    device = Device(data, own)
    device.machine.follow(hub.offer(first))
    device.wait_committed(first)
    device.stop()  # so that nothing is collected between the next lines
    # What an update has left that was withdrawn: nobody needs it.
    waste = data / "blobs" / ("0" * 64)
    waste.write_bytes(bytes(20_000_000))
    size = used_bytes(data)
    limits = FetchLimits(1 << 30, 0, disk_quota_bytes=size - 10_000_000)
    device = Device(data, dataclasses.replace(own, limits=limits))
    second = new_head(first, tmp_path / "two", "2")
    device.machine.follow(hub.offer(second, serial=2))
    device.wait_committed(second)
    assert not waste.exists()

    device.machine.use(dataclasses.replace(own, limits=FetchLimits(1 << 30, 0, disk_quota_bytes=100_000)))
    third = make_package(tmp_path / "three", version="3", seed=3)
    device.machine.follow(hub.offer(third, serial=3))
    assert "may take 100,000" in device.wait_state("fetching", "disk_quota_bytes")
    assert device.serves(second) and device.machine.previous() == first.digest, "what is kept is not given up"
    device.machine.use(own)
    device.wait_committed(third)
    device.stop()


def test_a_device_without_what_the_model_needs_fetches_no_model(
    tmp_path: Path, hub: PlainHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_package(tmp_path / "one").root
    manifest = json.loads((root / "manifest.json").read_bytes())
    manifest["additional_metadata"]["edgeloop"]["needs"] = ["onnxruntime-extensions"]
    (root / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(extensions, "library", lambda: None)
    device = Device(tmp_path / "device")
    device.machine.follow(hub.offer(Package.open(root)))
    assert "pip install 'edgeloop[processing]'" in device.wait_state("rolled_back", "onnxruntime-extensions")
    assert len(hub.requests) == 2, "its index and its manifest"
    device.stop()


def test_a_device_under_strain_waits_with_its_update(tmp_path: Path, hub: PlainHub) -> None:
    strain = "the device is hot: 91 °C"
    plane = DataPlane(None, id_prefix="t")
    machine = UpdateMachine(settings(tmp_path / "device"), plane, hold=lambda first: strain)
    machine.start()
    package = make_package(tmp_path / "one")
    machine.follow(hub.offer(package))
    end = time.monotonic() + 20
    while "91 °C" not in machine.status().reason:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert machine.status().state == "fetching" and not hub.requests
    strain = ""
    machine.follow(hub.offer(package, serial=2))
    while machine.committed() != package.digest:
        assert time.monotonic() < end, machine.status()
        time.sleep(0.02)
    machine.stop()
    machine.close()
    plane.close()


@pytest.mark.parametrize("first_failure", [2, 5, 6])
def test_a_disk_that_is_full_under_the_database_is_outlived(tmp_path: Path, hub: PlainHub, first_failure: int) -> None:
    """Three writes in a row fail, from that of verifying, probation or commit on: the update goes on by itself."""
    good = make_package(tmp_path / "one")
    new = new_head(good, tmp_path / "two", "2")
    device = Device(tmp_path / "device")
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    really, count = device.machine._store._write, 0

    def full(*arguments: object, **named: object) -> None:
        nonlocal count
        count += 1
        if first_failure <= count < first_failure + 3:
            served = device.plane.loaded
            assert served is not None and served.digest in (good.digest, new.digest)
            raise sqlite3.OperationalError("database or disk is full")
        really(*arguments, **named)  # type: ignore[arg-type]  # passed on as they come

    device.machine._store._write = full  # type: ignore[method-assign]  # the test's full disk
    device.machine.follow(hub.offer(new, serial=2, rollout="r1"))
    device.wait(lambda: count >= first_failure + 3 or device.machine.committed() == new.digest)
    device.wait_committed(new)
    assert device.machine.previous() == good.digest
    device.ask()
    device.stop()
