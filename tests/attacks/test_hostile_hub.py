"""A hub, or whoever stands in its place, sends something else than it announced: refused, the old release serves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.updates import fetch
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, ReleaseRef
from tests.doubles.packages import make_package
from tests.doubles.plain_hub import PlainHub
from tests.integration.test_update_life import Device


@pytest.fixture
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


def largest(package: Package) -> str:
    """Address of a tensor that every device fetches."""
    return next(f"/api/v1/blobs/{e.sha256}" for e in package.index.entries if e.path.endswith("body.weight.bin"))


def other_bytes(hub: PlainHub, package: Package) -> None:
    hub.files[largest(package)] = bytes(len(hub.files[largest(package)]))


def more_bytes(hub: PlainHub, package: Package) -> None:
    hub.files[largest(package)] += b"more"


def other_index(hub: PlainHub, package: Package) -> None:
    hub.files[f"/api/v1/releases/{package.digest}/index"] += b" "


@pytest.mark.parametrize(
    ("attack", "word"),
    [(other_bytes, "not those of the index"), (more_bytes, "sends more than"), (other_index, "its digest differs")],
)
def test_other_bytes_than_announced_are_refused(
    tmp_path: Path, hub: PlainHub, attack: Callable[[PlainHub, Package], None], word: str
) -> None:
    good, wanted = make_package(tmp_path / "good"), make_package(tmp_path / "wanted", version="2", seed=3)
    device = Device(tmp_path / "device")
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    document = hub.offer(wanted, serial=2)
    attack(hub, wanted)
    device.machine.follow(document)
    device.wait_state("rolled_back", word)
    assert device.serves(good)
    device.ask()
    device.stop()


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path, hub: PlainHub, path: str) -> None:
    """The index is what its digest says; it is the attacker's own."""
    entry = {"path": path, "sha256": "0" * 64, "size": 4}
    index = json.dumps({"files": [entry], "v": 1}, separators=(",", ":"), sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    hub.files[f"/api/v1/releases/{digest}/index"] = index
    device = Device(tmp_path / "device")
    ref = ReleaseRef(digest, "digits", "1", len(index))
    device.machine.follow(ChannelDocument("stable", 1, ref, None, hub.url))
    device.wait_state("rolled_back", "malformed")
    assert not list(tmp_path.rglob("evil"))
    device.stop()


def test_a_hub_that_drips_holds_nothing_up_for_ever(
    tmp_path: Path, hub: PlainHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is bounded by the bytes that are still to come; what has come is kept."""
    monkeypatch.setattr(fetch, "PATIENCE_S", -1e9)
    device = Device(tmp_path / "device")
    device.machine.follow(hub.offer(make_package(tmp_path / "one")))
    device.wait_state("fetching", "too slowly")
    device.stop()


def test_a_release_that_is_too_large_is_not_fetched(tmp_path: Path, hub: PlainHub) -> None:
    device = Device(tmp_path / "device")
    limits = fetch.FetchLimits(max_release_bytes=10_000, disk_reserve_bytes=0)
    device.machine.use(dataclasses.replace(device.machine.settings, limits=limits))
    device.machine.follow(hub.offer(make_package(tmp_path / "one")))
    device.wait_state("rolled_back", "max_release_bytes")
    assert not any("/blobs/" in path for path, _ in hub.requests)
    device.stop()
