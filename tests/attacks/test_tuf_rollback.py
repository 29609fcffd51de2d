"""Something old that was once true is offered again: a release, a document, metadata; with a wiped cache as well."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tuf.api.metadata import MetaFile

from edgeloop.package import Package
from edgeloop.protocol import SignedChannel
from edgeloop.trust import names, repository
from edgeloop.trust.names import ReleasePath
from tests.integration.hub_process import wait_for
from tests.integration.trusted_device import World, forked, world_with_release

History = tuple[World, list[Package], list[ReleasePath], list[SignedChannel]]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A device that has run three releases, the documents that offered the latter two, and who has seen them."""
    folder = tmp_path_factory.mktemp("rollback")
    with world_with_release(folder) as (world, first, path):
        packages, paths, documents = [first], [path], []
        for _ in range(2):
            packages.append(world.successor(first, folder))
            paths.append(world.publish(packages[-1]))
            documents.append(world.offer(packages[-1], paths[-1]))
            world.wait_committed(packages[-1])
        yield world, packages, paths, documents


def wipe_cache(world: World) -> None:
    """Python-tuf's files are gone; the agent does not run meanwhile, and the broker has nothing to fill them again."""
    world.device.stop()
    world.attacker.forget_channel()
    shutil.rmtree(world.folder / "trust")
    world.restart(stopped=True)
    wait_for(lambda: world.device.serving is not None, what="the committed release to serve")


@pytest.mark.parametrize("wiped", [False, True], ids=["cache", "cache wiped"])
def test_an_old_document_with_its_old_metadata(history: History, wiped: bool) -> None:
    world, packages, _, documents = history
    if wiped:
        wipe_cache(world)
        world.hub.mirror(dict(documents[0].metadata))
    world.attacker.send_channel(documents[0])
    world.refused("was seen before" if wiped else "must be >=", packages[2])
    world.hub.mirror(world.fleet.files)


@pytest.mark.parametrize("wiped", [False, True], ids=["cache", "cache wiped"])
@pytest.mark.parametrize("role", [names.release_role("digits"), names.TARGETS])
def test_one_old_role_under_a_new_snapshot(history: History, role: str, wiped: bool) -> None:
    """With the keys of snapshot and timestamp: everything is new but one role, which names what was true before."""
    world, packages, paths, _ = history
    for signed in (names.release_role("digits"), names.TARGETS):  # so that there is an older version of each
        world.fleet.put(signed, world.fleet.draft(signed))
    world.offer(packages[2], paths[2])
    wait_for(lambda: not world.device.trust.state().trouble, what="the true document to be trusted")
    wait_for(lambda: world.device.store.seen().get(role, {}).get("version") == _version(world, role), what="its floor")
    thief = forked(world.fleet)
    older = thief.newest[role].signed.version - 1
    channels, document = thief.draft(names.CHANNELS), world.document(packages[2], paths[2]).to_bytes()
    repository.set_channel(channels.signed, "stable", document)
    thief.put(names.CHANNELS, channels)
    snapshot = thief.draft(names.SNAPSHOT)
    for name, version in ((role, older), (names.CHANNELS, channels.signed.version)):
        data = thief.files[names.file_name(name, version)]
        snapshot.signed.meta[f"{name}.json"] = MetaFile.from_data(version, data, ["sha256"])
    thief.put(names.SNAPSHOT, snapshot)
    data = thief.files[names.file_name(names.SNAPSHOT, snapshot.signed.version)]
    thief.put(names.TIMESTAMP, repository.new_timestamp(thief.newest[names.TIMESTAMP], data, now=thief.now))
    if wiped:
        wipe_cache(world)
    world.hub.mirror(thief.files)
    world.attacker.send_channel(SignedChannel(document, thief.files))
    world.refused("was seen before" if wiped else f"Expected {role}.json version", packages[2])
    # The hub goes on with its own; the thief's number of a snapshot was never believed.
    for again in (names.SNAPSHOT, names.TIMESTAMP):
        world.fleet.put(again, world.fleet.draft(again))
    world.hub.mirror(world.fleet.files)


def _version(world: World, role: str) -> int:
    return int(world.fleet.newest[role].signed.version)


def test_a_signed_document_with_a_release_that_is_too_old(history: History) -> None:
    """The hub's own keys sign that the first release is current again. One step back is allowed, and no more."""
    world, packages, paths, _ = history
    world.offer(packages[0], paths[0])
    world.refused("it is older than what this device has run", packages[2])
    world.offer(packages[1], paths[1])
    world.wait_committed(packages[1])
    world.offer(packages[0], paths[0])
    world.refused("it is older than what this device has run", packages[1])
    world.offer(packages[2], paths[2])
    world.wait_committed(packages[2])
    assert world.device.store.floors() == {"digits": paths[1].order}


def test_an_old_release_after_a_restart_with_everything_else_lost(history: History) -> None:
    """What the agent's own store says outlives the cache of metadata and the releases' files."""
    world, packages, paths, _ = history
    world.device.stop()
    shutil.rmtree(world.folder / "trust")
    for path in (world.folder / "blobs").iterdir():
        path.unlink()
    world.restart(stopped=True)
    world.offer(packages[0], paths[0])
    world.refused("it is older than what this device has run", packages[2])


def test_a_release_under_a_new_counter_is_a_new_release(history: History) -> None:
    """How people bring an old release back: its publisher signs it again."""
    world, packages, _, _ = history
    world.install(packages[0])
