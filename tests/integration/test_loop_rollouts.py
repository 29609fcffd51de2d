"""The driver of rollouts over real records: one message a step, history, restarts, hands from outside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.policy import ChannelPolicy, Step
from edgeloop.insights import Window
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Desired
from tests.doubles.packages import make_package
from tests.doubles.sealed import channel_document
from tests.integration.loop_world import CHANNEL, POLICY, World


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    root = tmp_path_factory.mktemp("packages")
    return make_package(root / "old", version="1", seed=0), make_package(root / "new", version="2", head_seed=1)


@pytest.fixture
def world(tmp_path: Path, packages: tuple[Package, Package]) -> Iterator[World]:
    world = World(tmp_path / "hub")
    world.channels.set_policy(CHANNEL, POLICY)
    world.channels.offer(CHANNEL, world.publish(packages[0]), world.rollouts)
    yield world
    world.close()


@pytest.fixture
def new(world: World, packages: tuple[Package, Package]) -> str:
    return world.publish(packages[1])


def fleet(world: World, number: int, **settings: Any) -> None:
    for index in range(number):
        world.add_device(f"d{index}", **settings)


def documents(world: World) -> list[ChannelDocument]:
    topic = world.topics.channel(CHANNEL)
    return [channel_document(payload) for sent, payload in world.broker.sent if sent == topic]


def decisions(world: World, rollout: str) -> list[str]:
    return [entry.decision for entry in world.rollouts.history(rollout)]


def bad_window(world: World, digest: str, predictions: int, errors: int) -> Window:
    profile = world.releases.profile(digest)
    assert profile is not None
    window = Window.zero(profile.schema, digest, start=world.clock() - 1, end=world.clock())
    window.arrays["counts"][:2] = predictions, errors
    return window


def test_one_canary_then_all_and_one_message_a_step(world: World, new: str) -> None:
    fleet(world, 7)
    old = world.channels.get(CHANNEL).current
    world.broker.sent.clear()
    offered = world.channels.offer(CHANNEL, new, world.rollouts)
    assert offered.rollout is not None
    world.tick()
    on_new = [device for device in world.devices_by_name.values() if device.release == new]
    assert len(on_new) == 1
    world.tick()
    assert world.rollouts.get(offered.rollout).progress.done == 1
    assert len([d for d in world.devices_by_name.values() if d.release == new]) == 1, "it is watched first"
    for _ in range(3):
        world.tick()
    assert all(device.release == new for device in world.devices_by_name.values())
    for _ in range(4):
        world.tick()
    rollout = world.rollouts.get(offered.rollout)
    assert (rollout.state, rollout.candidate, rollout.current) == ("finished", new, old)
    channel = world.channels.get(CHANNEL)
    assert (channel.current, channel.previous, channel.rollout) == (new, old, None)
    fractions = [document.rollout.fraction if document.rollout else None for document in documents(world)]
    assert len(fractions) == 4 and fractions[0] == 0 and fractions[2:] == [1.0, None], "start, two steps, the end"
    told = world.rollouts.history(offered.rollout)
    assert [e.decision for e in told if e.decision != "wait"] == ["start", "widen", "widen", "finish"]
    assert all(entry.reason for entry in told) and len(told) < 12
    assert [e.at for e in told] == sorted(e.at for e in told)


def test_one_rollout_a_channel(world: World, new: str) -> None:
    fleet(world, 2)
    rollout = world.rollouts.start(CHANNEL, new, reason="first")
    with pytest.raises(Conflict, match=f"rollout {rollout} is under way"):
        world.rollouts.start(CHANNEL, new)
    assert world.channels.offer(CHANNEL, new, world.rollouts).rollout == rollout, "sent twice is sent once"
    world.rollouts.abort(rollout, "changed my mind")
    with pytest.raises(Conflict, match="aborted already"):
        world.rollouts.abort(rollout)
    again = world.rollouts.start(CHANNEL, new)
    assert [found.id for found in world.rollouts.newest()] == [again, rollout]
    assert world.rollouts.newest("another") == []


def test_what_cannot_be_started(world: World, new: str) -> None:
    current = world.channels.get(CHANNEL).current
    assert current is not None
    with pytest.raises(NotFound, match="no release"):
        world.rollouts.start(CHANNEL, "sha256:" + "0" * 64)
    with pytest.raises(NotFound, match="no channel"):
        world.rollouts.start("nowhere", new)
    with pytest.raises(Conflict, match="already current"):
        world.rollouts.start(CHANNEL, current)
    with pytest.raises(BadRequest, match="last step"):
        world.rollouts.start(CHANNEL, new, steps=[Step(devices=1)])
    world.channels.ensure("empty")
    with pytest.raises(Conflict, match="no release yet"):
        world.rollouts.start("empty", new)
    with pytest.raises(NotFound, match="no rollout"):
        world.rollouts.get("r1")
    assert world.rollouts.newest() == [] and world.channels.get(CHANNEL).rollout is None


def test_abort_is_one_message_and_devices_go_back(world: World, new: str) -> None:
    fleet(world, 4)
    old = world.channels.get(CHANNEL).current
    rollout = world.rollouts.start(CHANNEL, new, steps=[Step(devices=2), Step(share=1.0)])
    world.tick()
    assert sum(device.release == new for device in world.devices_by_name.values()) == 2
    sent = len(documents(world))
    ended = world.rollouts.abort(rollout, "ticket 17")
    assert (ended.state, ended.reason) == ("aborted", "ticket 17")
    assert len(documents(world)) == sent + 1
    world.let_devices_follow()
    assert all(device.release == old for device in world.devices_by_name.values())
    for _ in range(5):
        world.tick()
    assert world.channels.get(CHANNEL).current == old and decisions(world, rollout)[-1] == "abort"


def test_errors_of_the_candidate_go_back(world: World, new: str) -> None:
    fleet(world, 3)
    old = world.channels.get(CHANNEL).current
    assert old is not None
    # Errors from before the rollout, of an earlier try, are not the rollout's.
    world.add("d0", bad_window(world, new, 10, 90))
    rollout = world.rollouts.start(CHANNEL, new)
    world.tick()
    world.add("d0", bad_window(world, old, 1000, 0))
    world.tick()
    assert world.rollouts.get(rollout).state == "running"
    world.add("d0", bad_window(world, new, 70, 30))
    world.tick()
    ended = world.rollouts.get(rollout)
    assert ended.state == "aborted" and "30 of 100 requests to the candidate failed" in ended.reason


def test_totals_that_cannot_be_read_stop_a_rollout(world: World, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet(world, 1)
    rollout = world.rollouts.start(CHANNEL, new)
    world.tick()

    def broken(*_: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(world.insights, "totals", broken)
        for _ in range(20):
            world.tick()
        waiting = world.rollouts.get(rollout)
        assert waiting.state == "running" and "cannot be read" in waiting.reason
        assert waiting.progress.done == 1
        for _ in range(15):
            world.tick()
    assert world.rollouts.get(rollout).state == "aborted"


def test_nobody_online_is_waited_for_then_given_up(world: World, new: str) -> None:
    fleet(world, 3, online=False)
    rollout = world.rollouts.start(CHANNEL, new)
    for _ in range(29):
        world.tick()
    found = world.rollouts.get(rollout)
    assert (found.state, found.fraction, found.step) == ("running", 0.0, -1)
    world.tick(3)
    assert world.rollouts.get(rollout).state == "aborted"
    assert "no device of the channel is online" in world.rollouts.get(rollout).reason


def test_a_device_that_was_silent_for_long_counts_as_offline(world: World, new: str) -> None:
    fleet(world, 2)
    world.clock.now += 1000
    world.report(world.devices_by_name["d1"])
    rollout = world.rollouts.start(CHANNEL, new)
    world.tick()
    assert "1 of 1 online devices" in world.rollouts.get(rollout).reason


def test_pinned_devices_do_not_take_part(world: World, new: str) -> None:
    fleet(world, 2)
    world.devices.set_desired("d0", Desired(pin=world.channels.get(CHANNEL).current))
    rollout = world.rollouts.start(CHANNEL, new)
    world.tick()
    assert "1 of 1 online devices" in world.rollouts.get(rollout).reason


def test_every_moment_is_a_good_one_to_be_killed(world: World, new: str, tmp_path: Path) -> None:
    """A new hub on the same records after every single tick gives the same rollout as one that ran through."""
    fleet(world, 4)
    rollout = world.rollouts.start(CHANNEL, new, steps=[Step(devices=1), Step(share=0.5), Step(share=1.0)])
    alive, states = world, []
    for _ in itertools.takewhile(lambda i: i < 20, itertools.count()):
        alive.close()
        alive = World(world.folder, world.clock, list(world.devices_by_name.values()))
        alive.channels.publish_all()
        alive.tick()
        states.append(alive.rollouts.get(rollout).fraction)
    assert states == sorted(states) and alive.rollouts.get(rollout).state == "finished"
    kinds = [d for d in decisions(alive, rollout) if d != "wait"]
    assert kinds == ["start", "widen", "widen", "widen", "finish"]
    alive.close()


def test_a_step_that_stops_being_done_has_its_time_again(world: World, new: str) -> None:
    fleet(world, 1)
    plain = POLICY.model_dump()
    plain["rollout"] |= {"bake_s": 100.0, "timeout_s": 30.0}
    world.channels.set_policy(CHANNEL, ChannelPolicy.model_validate(plain))
    rollout = world.rollouts.start(CHANNEL, new)
    for _ in range(50):
        world.tick()
    canary = world.devices_by_name["d0"]
    canary.online = False
    world.report(canary)
    world.tick()
    broken = world.rollouts.get(rollout)
    assert (broken.state, broken.done_since, broken.step_started) == ("running", None, world.clock())
    for _ in range(20):
        world.tick()
    canary.online = True
    world.report(canary)
    world.tick()
    assert world.rollouts.get(rollout).done_since == world.clock()
    canary.online = False
    world.report(canary)
    for _ in range(32):
        world.tick()
    assert world.rollouts.get(rollout).state == "aborted"


def test_a_channel_that_is_given_another_release_ends_the_rollout(world: World, new: str) -> None:
    fleet(world, 2)
    rollout = world.rollouts.start(CHANNEL, new)
    world.tick()
    world.channels.set_current(CHANNEL, world.channels.get(CHANNEL).current or "")
    world.tick()
    found = world.rollouts.get(rollout)
    assert found.state == "aborted" and "another release meanwhile" in found.reason
    assert world.channels.get(CHANNEL).rollout is None


def test_a_rollout_that_cannot_be_decided_does_not_hold_up_the_others(
    world: World, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(world, 1)
    world.channels.offer("other", world.channels.get(CHANNEL).current or "", world.rollouts)
    first, second = world.rollouts.start("other", new), world.rollouts.start(CHANNEL, new)
    views = world.rollouts._views

    def broken(rollout: Any, now: float) -> Any:
        if rollout.id == first:
            raise RuntimeError("broken")
        return views(rollout, now)

    monkeypatch.setattr(world.rollouts, "_views", broken)
    for _ in range(12):
        world.tick()
    assert world.rollouts.get(second).state == "finished"
    assert world.rollouts.get(first).state == "running"
