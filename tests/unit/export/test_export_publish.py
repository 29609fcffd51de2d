"""`publish` against a small hub that keeps what the contract says, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Package
from model_export.errors import HubRefusedError, HubUnreachableError
from model_export.hub import Hub
from model_export.publishing.publish import Published
from model_export.publishing.publish import publish as send
from tests.doubles import digits
from tests.unit.export.small_hub import SmallHub


def publish(package: Package, url: str, channel: str, **options: Any) -> Published:
    with Hub(url, pause_s=0.001) as hub:
        return send(package, hub, channel, **options)


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with SmallHub().running() as server:
        yield server


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    root = tmp_path_factory.mktemp("publish") / "digits"
    digits.build(root)
    return Package.open(root)


def test_every_file_is_sent_once_and_a_repetition_sends_nothing(hub: SmallHub, package: Package) -> None:
    seen: list[str] = []
    first = publish(package, hub.url + "/", "stable", on_file=lambda path, size: seen.append(path))
    assert first.digest == package.digest and first.serial == 3 and first.rollout is None
    assert set(hub.blobs) == {entry.sha256 for entry in package.index.entries}
    assert first.files_sent == len(seen) == len(hub.blobs)
    again = publish(package, hub.url, "stable")
    assert (again.files_sent, again.bytes_sent, again.digest) == (0, 0, first.digest)
    assert hub.requests[-1] == "POST /channels/stable/releases"


def test_only_missing_files_are_sent(hub: SmallHub, package: Package) -> None:
    lacking = max(package.index.entries, key=lambda entry: entry.size)
    hub.blobs = {entry.sha256: b"" for entry in package.index.entries if entry.sha256 != lacking.sha256}
    done = publish(package, hub.url, "stable")
    assert (done.files_sent, done.bytes_sent) == (1, lacking.size)


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: SmallHub, package: Package) -> None:
    hub.failures = [503, 500, 429]
    assert publish(package, hub.url, "stable").digest == package.digest


def test_a_hub_that_is_not_there_is_a_clear_error(package: Package) -> None:
    with SmallHub() as closed:
        url = closed.url
    with pytest.raises(HubUnreachableError, match="no hub could be reached") as caught:
        publish(package, url, "stable")
    assert "cloud-hub serve" in caught.value.hint
    with pytest.raises(HubUnreachableError):
        publish(package, "not an address", "stable")


def test_another_server_at_the_address_is_recognised(hub: SmallHub, package: Package) -> None:
    hub.refuse = {"POST /releases/missing": (404, {"error": "nothing here"})}
    with pytest.raises(HubUnreachableError, match="not as a hub does"):
        publish(package, hub.url, "stable")
    hub.refuse = {"POST /releases/missing": (200, {"hello": "world"})}
    with pytest.raises(HubUnreachableError, match="not as a hub does"):
        publish(package, hub.url, "stable")


def test_the_hubs_reason_and_hint_are_passed_on(hub: SmallHub, package: Package) -> None:
    hub.refuse = {"POST /channels": (409, {"error": "a rollout is running", "hint": "abort it first"})}
    with pytest.raises(HubRefusedError, match="a rollout is running") as caught:
        publish(package, hub.url, "stable")
    assert caught.value.hint == "abort it first"


def test_a_file_that_has_gone_is_a_clear_error(hub: SmallHub, tmp_path: Path) -> None:
    digits.build(tmp_path / "p")
    package = Package.open(tmp_path / "p")
    (package.root / max(package.index.entries, key=lambda entry: entry.size).path).unlink()
    with pytest.raises(Exception, match="changed while"):
        publish(package, hub.url, "stable")
