"""The same hostile releases through each door: the audit, an upload to the hub, and an agent that is offered them.

None becomes a release, none is served, nothing is left where it does not belong, and what served goes on.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.updates import fetch
from edgeloop.package import Index, Package, PackageError, audit
from edgeloop.protocol import ChannelDocument, ReleaseRef
from tests.doubles.hostile import CONTENT, INDEXES, spoiled
from tests.doubles.packages import make_package
from tests.doubles.plain_hub import PlainHub
from tests.integration.test_update_life import Device
from tests.unit.hub.api_kit import ApiHub


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("good") / "digits")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    """The audit runs here in this process: that a child finds the same has tests of its own."""
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data")
    hub.hub.releases._audit = lambda root, index: audit(root, index=index, allow_hard_links=True)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def hub() -> Iterator[PlainHub]:
    hub = PlainHub()
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, hub: PlainHub, good: Package) -> Iterator[Device]:
    """A device that serves the good package; every attack after it has to leave it at that."""
    patch = pytest.MonkeyPatch()
    patch.setattr("edge_agent.updates.preparing.audit_in_child", audit_here)
    device = Device(tmp_path_factory.mktemp("device"))
    device.machine.follow(hub.offer(good))
    device.wait_committed(good)
    yield device
    device.stop()
    patch.undo()


def audit_here(root: Path, **options: object) -> object:
    options.pop("timeout_s", None)
    return audit(root, **options)  # type: ignore[arg-type]


def offer(device: Device, hub: PlainHub, index: bytes, serial: list[int] = [1]) -> str:  # noqa: B006  # one count for all
    digest, serial[0] = "sha256:" + hashlib.sha256(index).hexdigest(), serial[0] + 1
    hub.files[f"/api/v1/releases/{digest}/index"] = index
    ref = ReleaseRef(digest, "digits", "2", len(index))
    device.machine.follow(ChannelDocument("stable", serial[0], ref, None, hub.url))
    return device.wait_status(lambda status: (status.state, status.release) == ("rolled_back", digest)).reason


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_nobody_may_take(name: str) -> None:
    with pytest.raises(PackageError):
        Index.parse(INDEXES[name])


def test_an_index_that_nobody_may_take_sent_to_a_hub(api: ApiHub) -> None:
    for index in INDEXES.values():
        for address in ("releases", "releases/missing"):
            answer = api.http.post(f"/api/v1/{address}", content=index)
            assert answer.status_code in (413, 422), answer.text
            assert answer.json()["error"]
    assert api.get("releases") == []


def test_an_index_that_nobody_may_take_offered_to_an_agent(device: Device, hub: PlainHub, good: Package) -> None:
    for name in ("bidi override", "composed and decomposed", "NUL", "case alone", "nested", "five thousand digits"):
        assert offer(device, hub, INDEXES[name]), name
        assert device.serves(good)
    device.ask()


@pytest.mark.parametrize("name", CONTENT)
def test_a_package_that_nobody_may_take(
    name: str, good: Package, tmp_path: Path, api: ApiHub, device: Device, hub: PlainHub
) -> None:
    spoil, words = CONTENT[name]
    root = tmp_path / "spoiled"
    spoiled(good, root, spoil)
    index = Index.of_folder(root)

    with pytest.raises(PackageError, match=words):
        audit(root, index=index)
        Package.open(root).golden()

    for entry in index.entries:
        data = (root / entry.path).read_bytes()
        hub.files[f"/api/v1/blobs/{entry.sha256}"] = data
        api.http.put(f"/api/v1/blobs/{entry.sha256}", content=data)
    if name != "a header that announces too much":  # golden cases are run where they matter: on the device
        assert words in api.post("releases", index.to_bytes(), 422)["error"]
        assert api.get("releases") == []

    assert offer(device, hub, index.to_bytes())
    assert device.serves(good)
    device.ask()


def test_a_manifest_that_is_too_large_is_not_even_fetched(device: Device, hub: PlainHub, good: Package) -> None:
    entries = [entry for entry in good.index.entries if entry.path != "manifest.json"]
    manifest = good.index.by_path["manifest.json"]
    index = Index.of([*entries, type(manifest)("manifest.json", manifest.sha256, 9 << 20)])
    hub.requests.clear()
    assert "at most 8,388,608" in offer(device, hub, index.to_bytes())
    assert not any("/blobs/" in path for path, _ in hub.requests)


def test_compressed_answers_stay_as_they_are(device: Device, hub: PlainHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times as much could come out of what a hub sends: the agent asks for none and unpacks none."""
    index = b" " * (50 << 20)
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    hub.files[f"/api/v1/releases/{digest}/index"] = gzip.compress(index)
    hub.headers["Content-Encoding"] = "gzip"
    try:
        ref = ReleaseRef(digest, "digits", "2", len(index) >> 8)
        device.machine.follow(ChannelDocument("stable", 1000, ref, None, hub.url))
        refused = device.wait_status(lambda status: (status.state, status.release) == ("rolled_back", digest))
        assert "digest differs" in refused.reason
    finally:
        hub.headers.clear()


def test_an_index_that_drips_is_left_for_later(device: Device, hub: PlainHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_S", -1e9)
    index = INDEXES["NUL"].replace(b"txt", b"drip")
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    hub.files[f"/api/v1/releases/{digest}/index"] = index
    device.machine.follow(ChannelDocument("stable", 1001, ReleaseRef(digest, "digits", "2", len(index)), None, hub.url))
    device.wait_state("fetching", "too slowly")
