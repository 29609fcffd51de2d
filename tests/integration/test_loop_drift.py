"""The drift watch over real records: what is compared with what, once, in order, whatever happens to the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_hub.policy import ChannelPolicy
from edgeloop.insights import Window
from edgeloop.insights.alarming import QUIET_WINDOWS
from edgeloop.package import Package
from edgeloop.package.author import revise_head
from examples.digits.data import Split
from tests.doubles.packages import make_package
from tests.integration.loop_world import CHANNEL, POLICY, World

DAY = 86_400.0
ROWS = 400
RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    plain = POLICY.model_dump()
    plain["drift"] |= {"min_predictions": ROWS, "min_effect": 0.2}
    world.channels.set_policy(CHANNEL, ChannelPolicy.model_validate(plain))
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    world.add_device("d0")
    yield world
    world.close()


def current(world: World) -> str:
    digest = world.channels.get(CHANNEL).current
    assert digest is not None
    return digest


def rows(kind: str) -> Split:
    """Rows as the package's validation data (``.``), or darker ones (``d``)."""
    x = RANDOM.random((ROWS, 64)).astype(np.float32) * (0.6 if kind == "d" else 1.0)
    return Split(x, np.zeros(ROWS, np.int64))


def see(world: World, kinds: str, *, tick: bool = True) -> None:
    """A window of one second for each letter; ``_`` is a second without traffic."""
    for kind in kinds:
        if kind != "_":
            world.see(world.devices_by_name["d0"], rows(kind))
        if tick:
            world.tick()
        else:
            world.clock.now += 1.0


def watch(world: World) -> dict[str, Any]:
    return dict(world.drift.reports(CHANNEL)[0])


def settle(world: World) -> None:
    see(world, "__")


def test_an_alarm_after_two_in_a_row_says_what_moved_since_when(world: World) -> None:
    see(world, "....")
    begin = world.clock()
    see(world, "d")
    settle(world)
    assert watch(world)["streak"] == 1 and world.alarms.newest() == []
    see(world, "d")
    settle(world)
    (alarm,) = world.alarms.newest()
    assert alarm.state == "open" and alarm.release == current(world)
    assert alarm.since == begin and alarm.settled == begin + 1 and alarm.raised > alarm.since
    assert "mean" in alarm.summary and "of the mass moved downward" in alarm.summary and alarm.effect > 0.5
    assert all(aspect["against"] == "profile" and aspect["drifted"] for aspect in alarm.aspects)
    see(world, "ddd__")
    (same,) = world.alarms.newest()
    assert same.id == alarm.id and same.seen > alarm.seen and same.summary == alarm.summary


def test_one_that_is_interrupted_is_none(world: World) -> None:
    see(world, "d.d.d.d.d.__")
    assert world.alarms.newest() == []


def test_an_alarm_closes_when_the_drift_is_gone_and_another_one_may_come(world: World) -> None:
    see(world, "dd__")
    first = world.alarms.newest()[0]
    see(world, "." * (QUIET_WINDOWS - 1) + "__")
    assert world.alarms.get(first.id).state == "open"
    see(world, ".__")
    closed = world.alarms.get(first.id)
    assert closed.state == "closed" and "saw no drift" in closed.closed_reason and closed.closed
    see(world, "dd__")
    assert [alarm.state for alarm in world.alarms.newest()] == ["open", "closed"]


def test_each_stretch_is_compared_once_however_often_the_hub_looks(world: World) -> None:
    see(world, "...dd")
    for _ in range(50):
        world.drift.tick()
    settle(world)
    (alarm,) = world.alarms.newest()
    assert watch(world)["until"] == world.clock() - 2
    with world.db.read() as connection:
        from cloud_hub.drift_records import find_watch

        assert find_watch(connection, CHANNEL, current(world)).evaluations == 5
    assert alarm.seen == watch(world)["until"]


def test_a_backlog_gives_the_same_alarm_as_a_hub_that_was_there(world: World) -> None:
    begin = world.clock()
    see(world, "......dd....", tick=False)
    settle(world)
    settle(world)
    (alarm,) = world.alarms.newest()
    assert (alarm.since, alarm.settled) == (begin + 6, begin + 7)


def test_a_restarted_hub_goes_on_in_the_middle_of_a_streak(world: World) -> None:
    see(world, "..d__")
    assert watch(world)["streak"] == 1
    world.close()
    again = World(world.folder, world.clock, list(world.devices_by_name.values()))
    try:
        see(again, "d__")
        assert len(again.alarms.newest()) == 1
    finally:
        again.close()


def test_too_few_predictions_wait(world: World) -> None:
    few = rows("d")
    for _ in range(3):
        world.see(world.devices_by_name["d0"], Split(few.x[:100], few.y[:100]))
        world.tick()
    settle(world)
    assert world.drift.reports() == []
    see(world, "d__")
    assert watch(world)["predictions"] == 700


def test_late_windows_count_and_are_not_compared(world: World) -> None:
    see(world, "....__")
    before = watch(world)
    late = Window.zero(world.releases.profile(current(world)).schema, current(world))  # type: ignore[union-attr]
    late.start, late.end = world.clock() - 5, world.clock() - 4.5
    late.arrays["counts"][0] = 10 * ROWS
    world.add("d0", late)
    settle(world)
    assert watch(world) == before
    assert world.insights.totals(CHANNEL)["predictions"] == 14 * ROWS


def test_yesterday_and_the_same_hour_last_week_are_compared_with_too(world: World) -> None:
    """A world that differs from the validation data, is known, and changes once more."""
    see(world, "." * 8)
    midnight = (world.clock() // DAY + 1) * DAY
    world.clock.now = midnight + 100
    see(world, "..__")
    assert set(watch(world)["against"]) == {"profile", "yesterday"}
    assert watch(world)["against"]["yesterday"]["reference_size"] == 8 * ROWS
    assert world.alarms.newest() == []
    see(world, "dd__")
    (alarm,) = world.alarms.newest()
    assert {aspect["against"] for aspect in alarm.aspects} == {"profile", "yesterday"}
    # The day of the alarm is no reference: what was seen in its hours was not normal, and two windows are too few.
    world.clock.now = midnight + DAY + 100
    see(world, ".__")
    assert set(watch(world)["against"]) == {"profile"}
    # A week after the first day, in its hour.
    world.clock.now = midnight + 7 * DAY - DAY / 4
    first = float(world.insights.range(CHANNEL)[0][0])
    world.clock.now = first + 7 * DAY + 20
    see(world, ".__")
    assert set(watch(world)["against"]) == {"profile", "same hour last week"}
    assert watch(world)["against"]["same hour last week"]["reference_size"] == 8 * ROWS


def test_a_release_without_reference_learns_from_its_own_first_windows(
    world: World, package: Package, tmp_path: Path
) -> None:
    profile = package.profile()
    assert profile is not None
    weight, bias = package.head_arrays()
    empty = Window.zero(profile.schema)
    silent = revise_head(
        package,
        tmp_path / "silent",
        weight=weight,
        bias=bias,
        golden_outputs=package.golden().outputs,
        profile=profile.with_reference(empty),
        metrics={},
        lineage={},
        version="2",
    )
    world.channels.set_current(CHANNEL, world.publish(silent))
    world.let_devices_follow()
    see(world, "..__")
    assert watch(world)["learning"] == ["classes", "confidence", "entropy", "inputs", "projections"]
    assert watch(world)["against"]["profile"]["aspects"] == []
    see(world, "..__")
    assert watch(world)["learning"] == [], "three times min_predictions have been seen"
    assert len(watch(world)["against"]["profile"]["aspects"]) > 10
    assert world.alarms.newest() == []
    see(world, "dd__")
    assert len(world.alarms.newest()) == 1


def test_a_candidate_is_watched_and_a_release_that_was_left_is_not(world: World, tmp_path: Path) -> None:
    first = current(world)
    see(world, "dd__")
    assert len(world.alarms.open_on(CHANNEL, first)) == 1
    new = world.publish(make_package(tmp_path / "new", version="2", head_seed=1))
    world.rollouts.start(CHANNEL, new)
    world.tick()
    assert world.devices_by_name["d0"].release == new
    see(world, "dd")
    assert {report["release"] for report in world.drift.reports()} == {first, new}
    for _ in range(8):
        world.tick()
    assert current(world) == new
    assert world.alarms.open_on(CHANNEL, first) == []
    (alarm,) = world.alarms.open_on(CHANNEL)
    assert alarm.release == new, "darker images are drift for the new release as well"


def test_a_channel_that_fails_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.channels.offer("another", current(world), world.rollouts)
    compared = world.drift._evaluate

    def broken(channel: Any, release: str, now: float) -> None:
        if channel.name == "another":
            raise RuntimeError("broken")
        compared(channel, release, now)

    monkeypatch.setattr(world.drift, "_evaluate", broken)
    see(world, "dd__")
    assert len(world.alarms.newest()) == 1


def test_a_release_without_a_profile_is_not_watched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    see(world, "..", tick=False)
    monkeypatch.setattr(world.releases, "profile", lambda digest: None)
    settle(world)
    assert world.drift.reports() == []
