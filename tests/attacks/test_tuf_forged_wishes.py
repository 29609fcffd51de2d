"""The owner of the broker speaks as the hub to one device, or gives it the document of another channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Desired, SignedDesired
from edgeloop.trust import keys, names
from edgeloop.trust.names import ReleasePath
from tests.doubles.secure_fleet import SecureFleet
from tests.integration.hub_process import wait_for
from tests.integration.trusted_device import DEVICE, World, forked, signed_desired, world_with_release

Running = tuple[World, Package, ReleasePath]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A device that the hub has told once what it wants: to follow what it follows."""
    with world_with_release(tmp_path_factory.mktemp("wishes")) as (world, package, path):
        world.attacker.send_desired(signed_desired(world.fleet, wish(5, "stable")))
        wait_for(lambda: world.device.messaging.desired.serial == 5, what="the hub's wish")
        yield world, package, path


def wish(serial: int, channel: str = "evil", device: str = DEVICE) -> Desired:
    return Desired(channel=channel, device=device, serial=serial)


def unmoved(world: World, serves: Package) -> None:
    assert world.device.messaging.channel == "stable"
    assert world.device.messaging.desired.serial == 5
    assert world.device.serving == serves.digest


def test_a_wish_without_a_signature_or_with_another_key(running: Running) -> None:
    world, first, _ = running
    document = wish(6).to_bytes()
    world.attacker.send_desired(SignedDesired(document))
    world.refused("not signed by a key of the channels role", first)
    unmoved(world, first)
    thief = forked(world.fleet)
    thief.online[names.CHANNELS] = keys.generate()
    before = world.refusals()
    world.attacker.send_desired(signed_desired(thief, wish(7)))
    wait_for(lambda: world.refusals() > before, what="the refusal")
    unmoved(world, first)


def test_a_true_signature_under_another_wish(running: Running) -> None:
    world, first, _ = running
    true, before = signed_desired(world.fleet, wish(8, "stable")), world.refusals()
    world.attacker.send_desired(replace(true, document=wish(8).to_bytes()))
    wait_for(lambda: world.refusals() > before, what="the refusal")
    unmoved(world, first)


def test_a_wish_for_another_device_and_an_older_one_and_none_at_all(running: Running) -> None:
    world, first, _ = running
    state = world.device.messaging.state
    malformed, stale = state().malformed, state().stale
    world.attacker.send_desired(signed_desired(world.fleet, wish(9, device="dev-2")))
    wait_for(lambda: state().malformed > malformed, what="the wish for another device to be counted")
    world.attacker.send_desired(signed_desired(world.fleet, wish(4)))
    wait_for(lambda: state().stale > stale, what="the older wish to be counted")
    world.attacker.send_desired(b"")
    unmoved(world, first)


def test_the_document_of_a_foreign_channel(running: Running, tmp_path: Path) -> None:
    """It is truly signed, for others: as it is, under this channel's name, and with its path."""
    world, first, _ = running
    package = world.successor(first, tmp_path)
    foreign = replace(world.document(package, world.publish(package)), channel="night")
    sealed, malformed = world.fleet.channel(foreign), world.device.messaging.state().malformed
    world.attacker.send_channel(sealed)
    wait_for(lambda: world.device.messaging.state().malformed > malformed, what="the foreign document to be counted")
    renamed = ChannelDocument.from_bytes(sealed.document)
    world.attacker.send_channel(replace(sealed, document=replace(renamed, channel="stable").to_bytes()))
    world.refused("channels/stable is signed with other bytes", first)


def test_a_wish_of_the_hub_moves_the_device(running: Running, tmp_path: Path) -> None:
    """The end of the module: signed, for this device, newer; then the other channel's document counts."""
    world, first, _ = running
    package = world.successor(first, tmp_path)
    document = replace(world.document(package, world.publish(package)), channel="night")
    world.attacker.send_channel(world.fleet.channel(document), "night")
    world.hub.mirror(world.fleet.files)
    world.attacker.send_desired(signed_desired(world.fleet, wish(10, "night")))
    world.wait_committed(package)
    assert world.device.messaging.channel == "night"


def test_a_wish_before_any_document(tmp_path: Path) -> None:
    """A device that has verified nothing yet asks the hub for the keys of the role."""
    from tests.integration.brokers import broker_or_skip

    broker = broker_or_skip("mosquitto", tmp_path)
    world = World(tmp_path / "data", broker.port, SecureFleet.make("digits"))
    try:
        world.hub.mirror(world.fleet.files)
        world.attacker.send_desired(signed_desired(world.fleet, wish(1, "night")))
        wait_for(lambda: world.device.messaging.channel == "night", what="the wish to be followed")
    finally:
        world.close()
        broker.kill()
