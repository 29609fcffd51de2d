"""Metadata of different moments is put together, or comes from a mirror that never ends, drips, cuts or redirects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.protocol import SignedChannel
from edgeloop.protocol.codec import encode
from edgeloop.trust import names
from edgeloop.trust.names import ReleasePath
from tests.doubles.hostile_hub import HostileHub
from tests.integration.hub_process import wait_for
from tests.integration.trusted_device import DEVICE, World, metadata_with, world_with_release

Running = tuple[World, Package, ReleasePath]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with world_with_release(tmp_path_factory.mktemp("mixed")) as made:
        yield made


@pytest.fixture
def sealed(running: Running, tmp_path: Path) -> tuple[Package, SignedChannel]:
    """A release in order and its document, which nobody has sent yet; the hub has no metadata at all."""
    world, first, _ = running
    package = world.successor(first, tmp_path)
    document = world.fleet.channel(world.document(package, world.publish(package)))
    world.hub.mirror({})
    return package, document


def newest(world: World, role: str, back: int = 0) -> str:
    return names.file_name(role, world.fleet.newest[role].signed.version - back)


@pytest.mark.parametrize("role", [names.SNAPSHOT, names.CHANNELS, names.release_role("digits")])
def test_one_file_of_another_moment(running: Running, sealed: tuple[Package, SignedChannel], role: str) -> None:
    """Under the name of the newest version lies the one before; both are truly signed."""
    world, first, _ = running
    _, document = sealed
    older = world.fleet.files[newest(world, role, 1)]
    world.attacker.send_channel(metadata_with(document, {newest(world, role): older}))
    world.refused("does not match", first)


def test_the_document_of_another_moment(running: Running, sealed: tuple[Package, SignedChannel]) -> None:
    """All metadata is the newest, and the document is the one that was true before."""
    world, first, _ = running
    _, document = sealed
    later = world.fleet.channel(world.document(first, None))
    world.attacker.send_channel(SignedChannel(document.document, later.metadata))
    world.refused("channels/stable is signed with other bytes", first)


def misbehaving(world: World, document: SignedChannel, misdeed: str, role: str) -> None:
    """The document comes without one file, and the hub misbehaves where that would be."""
    name = names.file_name(role, 1 if role == names.TIMESTAMP else world.fleet.newest[role].signed.version)
    world.hub.files[f"/tuf/{name}"] = document.metadata[name]
    world.hub.misdeeds[f"/tuf/{name}"] = getattr(world.hub, misdeed)
    world.attacker.send_channel(metadata_with(document, {name: None}))


@pytest.mark.parametrize(
    ("misdeed", "role", "said"),
    [
        ("endless", names.TIMESTAMP, "exceeding the maximum allowed length of 16384"),
        ("drip", names.SNAPSHOT, "sends too slowly"),
        ("silence", names.TIMESTAMP, "comes too slowly"),
        ("redirect", names.TIMESTAMP, "HTTP 302"),
    ],
)
def test_data_without_an_end_and_slow_retrieval(
    running: Running, sealed: tuple[Package, SignedChannel], misdeed: str, role: str, said: str
) -> None:
    world, first, _ = running
    misbehaving(world, sealed[1], misdeed, role)
    world.refused(said, first)
    assert not [path for path, _ in world.hub.requests if path == "/elsewhere"]
    world.hub.misdeeds.clear()


def test_a_hub_that_keeps_silent_holds_up_nothing_else(running: Running, sealed: tuple[Package, SignedChannel]) -> None:
    """While a verification waits for the hub, the link goes on: what else comes is handled."""
    world, first, _ = running
    before, malformed = world.refusals(), world.device.messaging.state().malformed
    misbehaving(world, sealed[1], "silence", names.CHANNELS)
    name = f"/tuf/{newest(world, names.CHANNELS)}"
    wait_for(lambda: name in [path for path, _ in world.hub.requests], what="the hub to be asked")
    world.attacker.send(world.attacker.topics.ack(DEVICE), b"no acknowledgement")
    wait_for(lambda: world.device.messaging.state().malformed > malformed, what="what came meanwhile")
    wait_for(lambda: world.refusals() > before, what="the refusal")
    assert world.device.serving == first.digest
    world.hub.misdeeds.clear()


def test_files_beyond_their_bounds_and_nested_to_the_ground(
    running: Running, sealed: tuple[Package, SignedChannel]
) -> None:
    world, first, _ = running
    _, document = sealed
    malformed = world.device.messaging.state().malformed
    parts = {"document": document.document, "metadata": {"9.root.json": bytes(600_000)}}
    world.attacker.send_channel(encode({"v": 1, **parts}, 2_000_000))
    wait_for(lambda: world.device.messaging.state().malformed > malformed, what="a malformed message to be counted")
    world.attacker.send_channel(metadata_with(document, {"timestamp.json": b"[" * 500_000}))
    world.refused("exceeding the maximum allowed length of 16384", first)
    world.attacker.send_channel(metadata_with(document, {"timestamp.json": b"[" * 16_000}))
    world.refused("Failed to deserialize JSON", first)


def test_a_line_that_is_cut_again_and_again_is_gone_on_with(running: Running, tmp_path: Path) -> None:
    """The end of the module: without any metadata in the message, over a bad line, an honest release arrives."""
    world, first, _ = running
    package = world.successor(first, tmp_path)
    document = world.fleet.channel(world.document(package, world.publish(package)))
    world.hub.mirror(world.fleet.files)
    big = f"/tuf/{newest(world, names.release_role('digits'))}"
    world.hub.misdeeds[big] = HostileHub.cut.__get__(world.hub)
    world.attacker.send_channel(SignedChannel(document.document))
    world.wait_committed(package)
    assert [start for path, start in world.hub.requests if path == big and start is not None], "nothing was resumed"
