"""Software that nobody signed, or that somebody signed who may not: the owner of broker and hub tries to install it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.protocol import SignedChannel
from edgeloop.trust import keys, names, repository
from edgeloop.trust.names import ReleasePath
from tests.doubles.packages import make_package
from tests.doubles.secure_fleet import SecureFleet
from tests.integration.trusted_device import World, forked, world_with_release

Running = tuple[World, Package, ReleasePath]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with world_with_release(tmp_path_factory.mktemp("arbitrary"), "other") as made:
        yield made


@pytest.fixture
def wanted(running: Running, tmp_path: Path) -> Package:
    """What the attacker would like to run; the hub has its files."""
    return running[0].successor(running[1], tmp_path)


def test_a_document_without_a_signature(running: Running, wanted: Package) -> None:
    world, first, path = running
    world.hub.mirror({})
    world.attacker.send_channel(SignedChannel(world.document(wanted, path).to_bytes()))
    world.refused("HTTP 404", first)


def test_another_document_under_the_true_metadata(running: Running, wanted: Package) -> None:
    world, first, path = running
    sealed = SignedChannel(world.document(wanted, path).to_bytes(), world.fleet.bundle())
    world.attacker.send_channel(sealed)
    world.refused("signed with other bytes", first)


def test_a_fleet_of_the_attackers_own(running: Running, wanted: Package) -> None:
    """Everything is signed, by keys that nobody knows; the hub tells the same."""
    world, first, _ = running
    own = SecureFleet.make("digits")
    for _ in range(5):
        own.refresh()  # no version is older than the true ones
    world.offer(wanted, world.publish(wanted, own), own)
    world.refused("was signed by 0/1 keys", first)
    world.hub.mirror(world.fleet.files)


def test_a_root_of_the_attackers_own(running: Running, wanted: Package) -> None:
    """The next root gives every role to the attacker, and is signed by the attacker."""
    world, first, _ = running
    thief = forked(world.fleet)
    thief.root_key, thief.targets_key = keys.generate(), keys.generate()
    thief.online = {role: keys.generate() for role in names.ONLINE}
    root = thief.draft(names.ROOT)
    for role in names.TOP_LEVEL:
        repository.set_keys(root.signed, role, [thief.signer(role).public_key], 1)
    thief.put(names.ROOT, root)
    thief.put(names.TARGETS, repository.draft(thief.targets, names.TARGETS, now=thief.now))
    world.offer(wanted, ReleasePath("digits", 9), thief)
    world.refused("root was signed by 0/1 keys", first)
    world.hub.mirror(world.fleet.files)


def test_a_release_that_its_publisher_did_not_sign(running: Running, wanted: Package) -> None:
    """The hub's own keys name it; the publisher's role does not."""
    world, first, _ = running
    world.offer(wanted, ReleasePath("digits", 77))
    world.refused("no role names it", first)


def test_a_release_without_a_path(running: Running, wanted: Package) -> None:
    world, first, _ = running
    world.offer(wanted, None)
    world.refused("the release is not signed", first)
    world.offer(wanted, "channels/stable")
    world.refused("is no release", first)


def test_wrong_software_at_the_path_of_the_right_one(running: Running, wanted: Package) -> None:
    """The channel names a release that is signed, with the digest of another."""
    world, first, path = running
    world.offer(wanted, path)
    world.refused(f"{path} is signed with other bytes", first)


def test_wrong_software_of_another_publisher(running: Running, wanted: Package) -> None:
    """A publisher of another model signs a package under that model; with the digits' name it is still not theirs."""
    world, first, _ = running
    role = names.release_role("other")
    draft = world.fleet.draft(role)
    path = repository.add_release(draft.signed, "other", wanted.digest, len(wanted.index.to_bytes()))
    world.fleet.put(role, draft)
    world.offer(wanted, path)
    world.refused("it is a release of other, and this device runs digits", first)
    machine = world.device.machine
    machine.use(replace(machine.settings, models=("digits", "other")))
    world.offer(wanted, path)
    world.refused("is signed as one of other, and calls itself digits", first)
    machine.use(replace(machine.settings, models=()))


def test_a_malicious_mirror_gives_other_files(running: Running, wanted: Package, tmp_path: Path) -> None:
    """Everything is signed and true, and whoever owns the storage gives another index, then other bytes."""
    world, first, _ = running
    path = world.publish(wanted)
    other = make_package(tmp_path / "evil", seed=4)
    index = f"/api/v1/releases/{wanted.digest}/index"
    world.hub.misdeeds[index] = lambda to, body: world.hub.send(to, other.index.to_bytes())
    world.offer(wanted, path)
    world.refused("its digest differs", first)
    world.hub.misdeeds.clear()


def test_a_malicious_mirror_gives_other_bytes(running: Running, wanted: Package) -> None:
    world, first, _ = running
    path = world.publish(wanted)
    known = {entry.sha256 for entry in first.index.entries}
    world.hub.add(wanted)
    for entry in wanted.index.entries:
        if entry.sha256 not in known:
            world.hub.misdeeds[f"/api/v1/blobs/{entry.sha256}"] = lambda to, body: world.hub.send(to, bytes(len(body)))
    world.offer(wanted, path)
    world.refused("are not those of the index", first)
    world.hub.misdeeds.clear()
    assert not world.device.machine.refused(), "it is held against the release that the mirror has lied"


def test_one_stolen_key_of_two(running: Running, wanted: Package) -> None:
    """A role whose releases need two publishers: a thief with one of the keys signs alone."""
    world, first, _ = running
    fleet, second = world.fleet, keys.generate()
    targets = fleet.draft(names.TARGETS)
    repository.allow(targets.signed, "digits", [second.public_key], threshold=2)
    fleet.put(names.TARGETS, targets)
    role = names.release_role("digits")
    both = (fleet.publishers["digits"], second)
    fleet.put(role, fleet.draft(role), *both)
    thief = forked(fleet)
    draft = thief.draft(role)
    path = repository.add_release(draft.signed, "digits", wanted.digest, len(wanted.index.to_bytes()))
    thief.put(role, draft, both[0])
    world.offer(wanted, path, thief)
    world.refused("was signed by 1/2 keys", first)
    # With both it is a release like any other: nothing that was refused above is held against the device or the fleet.
    thief.put(role, thief.draft(role), *both)
    world.offer(wanted, path, thief)
    world.wait_committed(wanted)
