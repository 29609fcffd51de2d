"""A thief drives numbers to their end, so that nothing that the fleet signs is ever new enough; and the ways out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.protocol import SignedChannel
from edgeloop.trust import keys, names, repository
from edgeloop.trust.names import ReleasePath
from tests.integration.hub_process import wait_for
from tests.integration.trusted_device import World, forked, world_with_release

LAST = 2**31 - 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_with_release(tmp_path_factory.mktemp("forward")) as (made, _, _):
        yield made


def current(world: World) -> tuple[Package, ReleasePath]:
    assert world.current is not None
    return world.current, world.path_of(world.current)


def test_versions_and_serials_at_their_end_and_new_keys(world: World, tmp_path: Path) -> None:
    """Timestamp, snapshot, the channels' role and the document's serial are at their end; the device believes it.

    People give the hub new keys, and the fleet goes on where it was.
    """
    first, path = current(world)
    thief = forked(world.fleet)
    draft = thief.draft(names.CHANNELS)
    draft.signed.version = LAST
    document = replace(world.document(first, path), serial=2**52)
    repository.set_channel(draft.signed, "stable", document.to_bytes())
    thief.put(names.CHANNELS, draft)
    changed = {names.CHANNELS: thief.files[names.file_name(names.CHANNELS, LAST)]}
    snapshot = repository.new_snapshot(thief.newest[names.SNAPSHOT], changed, version=LAST, now=thief.now)
    thief.put(names.SNAPSHOT, snapshot)
    data = thief.files[names.file_name(names.SNAPSHOT, LAST)]
    timestamp = repository.new_timestamp(thief.newest[names.TIMESTAMP], data, version=LAST, now=thief.now)
    thief.put(names.TIMESTAMP, timestamp)
    world.attacker.send_channel(SignedChannel(document.to_bytes(), thief.bundle()))
    wait_for(lambda: world.device.store.seen()[names.TIMESTAMP]["version"] == LAST, what="the thief to be believed")
    second = world.successor(first, tmp_path)
    following = world.publish(second)
    world.offer(second, following)
    world.refused("must be >=", first)

    fleet = world.fleet
    fleet.online = {role: keys.generate() for role in names.ONLINE}
    root, targets = fleet.draft(names.ROOT), fleet.draft(names.TARGETS)
    for role in (names.SNAPSHOT, names.TIMESTAMP):
        repository.set_keys(root.signed, role, [fleet.online[role].public_key], 1)
    for role in (names.CHANNELS, names.RETRAINED):
        repository.set_keys(targets.signed, role, [fleet.online[role].public_key], 1)
    fleet.put(names.ROOT, root)
    fleet.put(names.TARGETS, targets)
    fleet.put(names.RETRAINED, fleet.draft(names.RETRAINED))
    world.offer(second, following)
    world.wait_committed(second)
    world.restart()  # and it still holds after a restart
    third = world.successor(first, tmp_path)
    world.install(third)


def test_a_release_of_the_hubs_key_never_outruns_the_publisher(world: World, tmp_path: Path) -> None:
    """The greatest revision there is; the publisher's next release comes after it."""
    first, path = current(world)
    ahead = world.successor(first, tmp_path)
    draft = world.fleet.draft(names.RETRAINED)
    last = repository.add_retrained(draft.signed, path, ahead.digest, len(ahead.index.to_bytes()), after=10**18 - 2)
    world.fleet.put(names.RETRAINED, draft)
    world.install(ahead, last)
    world.install(world.successor(first, tmp_path))
    assert world.device.store.floors() == {"digits": last.order}
