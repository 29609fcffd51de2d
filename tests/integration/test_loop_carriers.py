"""Who carries a drift: three of twenty devices, one that shouts, a segment; through the real ingest, on real digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud_hub.inbox import Incoming
from cloud_hub.ingest import Ingest
from cloud_hub.policy import ChannelPolicy
from cloud_hub.quarantine import Quarantine
from cloud_hub.seen import Seen
from edgeloop.insights import Observer, Window
from edgeloop.package import Package
from edgeloop.protocol import Insights
from examples.digits.data import Slip, Split
from tests.doubles.digits import splits
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, World

DIMMED = Slip("dimmed", light=0.6)
CLEAN = Slip("clean")
ROWS = 60


class Fleet:
    """Twenty devices that send windows of real digits through the hub's own ingest."""

    def __init__(self, world: World, devices: int = 20) -> None:
        self.world, self.names = world, [f"cam-{i:02}" for i in range(devices)]
        self.slips = dict.fromkeys(self.names, CLEAN)
        self.rows = dict.fromkeys(self.names, ROWS)
        self.ingest = Ingest(
            world.db,
            world.devices,
            world.insights,
            Quarantine(world.db, rows_each=10),
            world.topics,
            world.broker,
            known_channel=lambda name: name == CHANNEL,
            clock=world.clock,
        )
        self.ingest.observes(world.light.observed)
        self._random, self._sent = np.random.default_rng(3), 0
        release = world.channels.get(CHANNEL).current
        assert release is not None
        self.release = release
        profile = world.releases.profile(release)
        assert profile is not None
        self.profile, self.observer = profile, Observer(profile)

    def run(self, seconds: int) -> None:
        """Each second every device sends a window, and the hub does what is due."""
        for _ in range(seconds):
            self._sent += 1
            messages = [self._message(name) for name in self.names]
            self.ingest.process(messages)
            self.world.clock.now += 1.0
            self.world.drift.tick()

    def _message(self, name: str) -> Incoming:
        window = self.window(name)
        epoch = 1 + self.names.index(name)  # no two devices have the same
        message = Insights(name, epoch, self._sent, self._sent, self._sent, window.to_wire(), CHANNEL)
        return Incoming("insights", name, message.to_bytes(), self.world.clock())

    def window(self, name: str, segment: str = "") -> Window:
        """What a device has seen for a second."""
        now, seen = self.world.clock(), splits().test
        chosen = self._random.integers(0, len(seen.y), self.rows[name])
        digits = self.slips[name](Split(seen.x[chosen], seen.y[chosen]), seed=self._sent)
        probabilities, features = self.world.infer(self.release, digits.x)
        window = Window.zero(self.profile.schema, self.release, "cpu-fp32", "CPU", now - 1.0, now, segment=segment)
        self.observer.observe(window, digits.x, probabilities, features, np.full(len(digits.y), 50_000))
        return window


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    plain = POLICY.model_dump()
    plain["drift"] |= {"min_predictions": 300, "interval_s": 1.0, "min_effect": 0.25}
    plain["retraining"]["trigger"] = "manual"
    world.channels.set_policy(CHANNEL, ChannelPolicy.model_validate(plain))
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    yield world
    world.close()


def test_three_of_twenty_devices_that_drift_are_named_and_what_moved(world: World) -> None:
    """The fleet as a whole moves less than min_effect: only the devices' own windows show it."""
    fleet = Fleet(world)
    fleet.run(6)
    assert world.alarms.newest() == []
    drifting = ["cam-03", "cam-11", "cam-17"]
    fleet.slips |= dict.fromkeys(drifting, DIMMED)
    fleet.run(12)
    (alarm,) = world.alarms.newest()
    assert (alarm.scope, alarm.devices, alarm.segments) == ("devices", drifting, [])
    (report,) = world.drift.reports(CHANNEL)
    fleet_effects = [
        aspect["effect"] for aspect in report["against"]["profile"]["aspects"] if aspect["name"] != "features"
    ]
    assert max(fleet_effects) < 0.25 and not report["drifted"], "the fleet as a whole has hardly moved"
    assert report["devices"] == drifting
    darker = next(aspect for aspect in alarm.aspects if aspect["name"] == "inputs[0]")
    assert darker["direction"] == "down" and darker["effect"] > 0.5 and darker["moved"].startswith("input mean: ")
    assert all(aspect["effect"] >= 0.25 and aspect["against"] == "profile" for aspect in alarm.aspects)
    assert alarm.summary.startswith("devices cam-03, cam-11, cam-17: ")
    assert "the others look as ever" in alarm.suggestion
    assert alarm.certainty > 0.9999 and alarm.since <= alarm.raised
    assert world.insights.totals(CHANNEL)["predictions"] == 18 * 20 * ROWS, "and every prediction is counted"


def test_an_alarm_of_devices_ends_when_they_look_as_ever_and_survives_a_restart(world: World) -> None:
    fleet = Fleet(world, devices=6)
    fleet.slips["cam-02"] = DIMMED
    fleet.run(14)
    (alarm,) = world.alarms.newest()
    assert (alarm.devices, alarm.state) == (["cam-02"], "open")
    assert {"inputs[0]"} <= {aspect["name"] for aspect in alarm.aspects}
    assert world.training._situations.alarm(world.channels.get(CHANNEL)) is None, "one camera's fault retrains nobody"
    world.close()
    again = World(world.folder, world.clock)
    try:
        fleet = Fleet(again, devices=6)
        fleet._sent = 14
        fleet.run(2)
        assert again.alarms.get(alarm.id).state == "open"
        fleet.run(32)
        closed = again.alarms.get(alarm.id)
        assert closed.state == "closed" and "saw no drift" in closed.closed_reason
        assert len(again.alarms.newest()) == 1
    finally:
        again.close()


def test_when_the_world_changes_for_all_nobody_is_named(world: World) -> None:
    fleet = Fleet(world, devices=6)
    fleet.run(6)
    fleet.slips |= dict.fromkeys(fleet.names, DIMMED)
    fleet.run(20)
    (alarm,) = world.alarms.newest()
    assert (alarm.scope, alarm.devices) == ("fleet", [])
    assert "everywhere at once" in alarm.suggestion


def test_one_device_that_shouts_is_not_the_fleet(world: World) -> None:
    """It sends twenty times as much as each other: most of every total, and no alarm of the fleet."""
    fleet = Fleet(world, devices=8)
    fleet.rows["cam-05"] = 20 * ROWS
    fleet.run(6)
    fleet.slips["cam-05"] = DIMMED
    fleet.run(10)
    (report,) = world.drift.reports(CHANNEL)
    profile = report["against"]["profile"]
    assert profile["drifted"] and profile["outvoted"] and not report["drifted"]
    (alarm,) = world.alarms.newest()
    assert (alarm.scope, alarm.devices) == ("devices", ["cam-05"])


def test_a_segment_that_drifts_is_named(world: World) -> None:
    """Every device has a day and a night, and only the nights have moved."""
    fleet = Fleet(world, devices=4)
    for second in range(16):
        for name in fleet.names:
            for segment in ("day", "night"):
                fleet.slips[name] = DIMMED if segment == "night" and second > 5 else CLEAN
                world.light.observed(Seen.of(name, CHANNEL, fleet.window(name, segment)))
        world.clock.now += 1.0
        world.drift.tick()
    (alarm,) = world.alarms.newest()
    assert (alarm.scope, alarm.segments, alarm.devices) == ("segments", ["night"], [])
    assert alarm.summary.startswith("segments night: ")
