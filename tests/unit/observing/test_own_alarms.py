"""The device's own alarm: by the policy's rule, from its own closed windows, in its own time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.own_alarms import OwnAlarms, plain
from edgeloop.insights import Observer, Profile, Window
from edgeloop.insights.alarming import QUIET_WINDOWS
from edgeloop.insights.policy import DriftRule, Limits
from edgeloop.insights.privacy.rule import PrivacyRule
from edgeloop.protocol import Reported
from tests.unit.insights.worlds import digit_outputs, slip, unseen_digits

RELEASE = "sha256:" + "a" * 64
RULE = DriftRule(min_predictions=120, consecutive=2)


class Device:
    def __init__(self, rule: DriftRule = RULE) -> None:
        x, _ = unseen_digits()
        features, probabilities = digit_outputs(x[:400])
        self.profile = Profile.fit(x[:400], probabilities, features)
        self.rest, self.now, self.changes = x[400:], 1000.0, 0
        self.rule, self.profiles = rule, {RELEASE: self.profile}
        self.alarms = OwnAlarms(self.profiles.get, lambda: self.rule, self.changed)
        self._random = np.random.default_rng(1)

    def changed(self) -> None:
        self.changes += 1

    def sees(self, kinds: str, rows: int = 60) -> None:
        """A window of 30 s for each letter: ``.`` clean, ``d`` slipped."""
        for kind in kinds:
            images = self.rest[self._random.choice(len(self.rest), rows, replace=False)]
            if kind == "d":
                images = slip(images, seed=int(self.now))
            features, probabilities = digit_outputs(images)
            window = Window.zero(self.profile.schema, RELEASE, "v", "CPU", self.now, self.now + 30, segment="line-1")
            Observer(self.profile).observe(window, images, probabilities, features, np.zeros(0, np.int64))
            self.alarms.add([window])
            self.alarms.look()
            self.now += 30


def test_it_is_raised_after_stretches_in_a_row_and_says_what_moved_since_when() -> None:
    device = Device()
    device.sees("....dd")
    assert device.alarms.open == () and device.changes == 0, "one stretch of two windows is not two stretches"
    device.sees("dd")
    (alarm,) = device.alarms.open
    assert (alarm.release, alarm.since, alarm.seen) == (RELEASE, 1120.0, 1240.0)
    assert alarm.effect > 0.5 and alarm.p_value < 1e-6 and "inputs[0]" in alarm.aspects
    assert "of the mass moved" in alarm.moved and "camera" in alarm.suggestion
    assert device.changes == 1
    told = Reported("d", "stable", None, alarms=device.alarms.open)
    assert Reported.from_bytes(told.to_bytes()).alarms == device.alarms.open
    assert plain(device.alarms.open)[0]["moved"] == alarm.moved


def test_a_device_whose_windows_leave_noised_tells_nobody_else(tmp_path: Path) -> None:
    device = Device()
    device.sees("dddd")
    for name, limits, told in (
        ("open", Limits(), device.alarms.open),
        ("noised", Limits(privacy=PrivacyRule(3.0, 1e-6, 1.0)), ()),
    ):
        observing = Observing(tmp_path / f"{name}.db", limits=limits)
        observing.recorder.alarms = device.alarms
        assert observing.told_alarms == told
        observing.stop()
    assert len(device.alarms.open) == 1, "the device itself still knows"


def test_it_ends_when_the_drift_is_gone() -> None:
    device = Device()
    device.sees("dddd")
    assert len(device.alarms.open) == 1
    device.sees(".." * (QUIET_WINDOWS - 1))
    assert len(device.alarms.open) == 1
    device.sees("..")
    assert device.alarms.open == ()


def test_clean_windows_raise_nothing_and_few_rows_wait() -> None:
    device = Device()
    device.sees("." * 40)
    device.sees("d", rows=10)
    assert device.alarms.open == () and device.changes == 0


def test_the_policy_is_read_anew_and_an_effect_too_small_is_none() -> None:
    device = Device(DriftRule(min_predictions=120, min_effect=1.0))
    device.sees("dddddd")
    assert device.alarms.open == ()
    device.rule = DriftRule(min_predictions=60, consecutive=1)
    device.sees("d")
    assert len(device.alarms.open) == 1


def test_a_release_whose_profile_is_gone_and_an_absurd_rule_change_nothing() -> None:
    device = Device(DriftRule(min_predictions=60, alpha=0.0))
    device.sees("dd")
    device.rule = RULE
    device.profiles.clear()
    device.sees("dddd")
    assert device.alarms.open == ()


def test_releases_do_not_pile_up() -> None:
    device = Device()
    for i in range(20):
        device.alarms.add([Window.zero(device.profile.schema, f"sha256:{i}")])
    assert len(device.alarms._gathered) == 4


def test_the_release_that_serves_keeps_its_alarm_while_others_are_tried_and_taken_back() -> None:
    device = Device()
    device.sees("dddd")
    (alarm,) = device.alarms.open
    for i in range(20):
        device.alarms.add([Window.zero(device.profile.schema, f"sha256:{i}")])
        device.alarms.add([Window.zero(device.profile.schema, RELEASE)])
    assert device.alarms.open == (alarm,)


@pytest.mark.parametrize("path", ["agent.db"])
def test_the_recorder_compares_in_its_own_thread(tmp_path: Path, path: str, monkeypatch: Any) -> None:
    """The whole of observing: what is answered is closed, compared and told, by the thread that counts."""
    import threading

    from edge_agent.observing.assembly import Observing

    looked: list[str] = []
    monkeypatch.setattr(OwnAlarms, "look", lambda self: looked.append(threading.current_thread().name))
    observing = Observing(tmp_path / path, window_s=0.05, checkpoint_s=0.05)
    observing.start()
    until = time.monotonic() + 20
    while not looked and time.monotonic() < until:
        time.sleep(0.02)
    observing.stop()
    assert set(looked) == {"observing"}
