"""Somebody keeps back what is newer; and a clock that is wrong, which may neither brick a device nor fool it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.trust import keys, names, repository
from tests.integration.hub_process import wait_for
from tests.integration.trusted_device import World, forked, world_with_release

HOUR, DAY = 3600.0, 86_400.0
SOAK = os.environ.get("EDGELOOP_SOAK") == "1"


class Hand:
    """A clock that a test sets: ahead of the true one by so many seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


Running = tuple[World, Package, Hand]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Hand]]:
    hand = Hand()
    with world_with_release(tmp_path_factory.mktemp("freeze"), clock=hand) as (world, _, _):
        yield world, hand


@pytest.fixture
def running(made: tuple[World, Hand]) -> Iterator[Running]:
    """A device, the release that it runs, and its clock, which is right."""
    world, hand = made
    assert world.current is not None
    yield world, world.current, hand
    hand.ahead = 0.0
    world.fleet.refresh()  # a thief with the true keys has signed the same version in the meantime


def test_metadata_that_has_ended_and_a_clock_that_is_set(running: Running, tmp_path: Path) -> None:
    """What is offered ended nine days ago: within the grace it would count, beyond it does not.

    The clock was wrong, as it turns out: when it is set, the device goes on by itself, without another message.
    """
    world, first, hand = running
    second = world.successor(first, tmp_path)
    hand.ahead = 16 * DAY  # the timestamp lasts seven days, the grace is seven more
    world.offer(second, world.publish(second))
    world.refused("the signed metadata of timestamp ended on", first)
    assert "this device's clock says" in world.told()
    hand.ahead = 13 * DAY
    world.wait_committed(second)


def test_nothing_newer_comes(running: Running) -> None:
    """A frozen device says so, and goes on serving."""
    world, first, hand = running
    assert world.device.trust.state().trouble == ""
    hand.ahead = 15 * DAY
    wait_for(lambda: "or somebody keeps back what is newer" in world.told(), what="the trouble to be told")
    wait_for(lambda: world.reports("or somebody keeps back what is newer"), what="the hub to be told")
    assert world.device.serving == first.digest
    hand.ahead = 0.0
    wait_for(lambda: world.device.trust.state().trouble == "", what="all to be well again")


@pytest.mark.parametrize("ahead", [-54 * 365 * DAY, 30 * HOUR], ids=["54 years back", "30 hours ahead"])
def test_a_wrong_clock_stops_no_update_and_lets_nothing_old_in(running: Running, tmp_path: Path, ahead: float) -> None:
    world, first, hand = running
    frozen = world.fleet.channel(world.document(first, world.path_of(first)))
    hand.ahead = ahead
    world.restart()
    wait_for(lambda: world.device.serving == first.digest, what="the committed release to serve")
    second = world.successor(first, tmp_path)
    world.install(second)
    assert ("before its enrolment" in world.device.trust.state().trouble) == (ahead < 0)
    world.attacker.send_channel(frozen)
    world.refused("must be >=", second)


def test_a_clock_54_years_back_does_not_revive_what_had_ended_before_the_enrolment(
    running: Running, tmp_path: Path
) -> None:
    """Keys that a thief has had for years sign nothing new; their old metadata is as old as it was."""
    world, first, hand = running
    thief = forked(world.fleet)
    thief.now = datetime.now(UTC) - timedelta(days=60)
    second = world.successor(first, tmp_path)
    hand.ahead = -54 * 365 * DAY
    world.offer(second, world.publish(second), thief)
    world.refused("ended on", first)


def test_a_clock_400_days_ahead_bricks_nothing(running: Running, tmp_path: Path) -> None:
    """Everything has ended by that clock; the device serves, also after a restart, and takes no harm for later."""
    world, first, hand = running
    second = world.successor(first, tmp_path)
    hand.ahead = 400 * DAY
    world.offer(second, world.publish(second))
    world.refused("Set the clock if it is wrong", first)
    world.restart()
    wait_for(lambda: world.device.serving == first.digest, what="the committed release to serve")
    world.refused("Set the clock if it is wrong", first)
    hand.ahead = 0.0
    world.wait_committed(second)


def test_a_key_that_was_taken_back_while_the_broker_kept_quiet(running: Running, tmp_path: Path) -> None:
    """The next root comes with no message: whoever owns the broker leaves it out, and signs with the old keys.

    The device asks the hub before it fetches anything.
    """
    world, first, _ = running
    thief, fleet = forked(world.fleet), world.fleet
    root = fleet.draft(names.ROOT)
    fleet.online = {**fleet.online, names.TIMESTAMP: keys.generate()}
    repository.set_keys(root.signed, names.TIMESTAMP, [fleet.online[names.TIMESTAMP].public_key], 1)
    fleet.put(names.ROOT, root)
    fleet.refresh()
    second = world.successor(first, tmp_path)
    sealed = thief.channel(world.document(second, world.publish(second, thief)))
    world.hub.mirror(fleet.files)
    world.attacker.send_channel(sealed)
    world.refused("timestamp was signed by 0/1 keys", first)


def test_a_cache_that_is_damaged_at_random(running: Running, tmp_path: Path) -> None:
    """Python-tuf syncs no file: after a power cut each may be as it was, cut, empty, garbage or gone."""
    world, first, _ = running
    chance = random.Random(3)
    for _ in range(20 if SOAK else 1):
        world.device.stop()
        for path in sorted((world.folder / "trust").rglob("*.json")):
            data = b"" if path.is_symlink() else path.read_bytes()
            match chance.randrange(5):
                case 0:
                    path.unlink()
                case 1 if data:
                    path.write_bytes(data[: len(data) // 2])
                case 2 if data:
                    path.write_bytes(b"")
                case 3 if data:
                    path.write_bytes(chance.randbytes(len(data)))
        world.restart(stopped=True)
        second = world.successor(first, tmp_path)
        world.install(second)


def test_a_device_with_another_grace(running: Running, tmp_path: Path) -> None:
    """Without a grace metadata ends when it ends."""
    world, first, hand = running
    hand.ahead = 8 * DAY
    world.restart(grace_s=0.0)
    second = world.successor(first, tmp_path)
    world.offer(second, world.publish(second))
    world.refused("ended on", first)
    world.restart(grace_s=30 * DAY)
    world.wait_committed(second)
    assert world.refusals() == 0
