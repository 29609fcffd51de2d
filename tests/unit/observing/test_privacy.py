"""Noise for what leaves: charged once, remembered, never without a budget, and the ledger says what left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.privacy import PlanError, Privacy, ask
from edge_agent.observing.rows import unpack
from edge_agent.ports import FeedbackItem
from edgeloop.insights import Window
from edgeloop.insights.aspects.privacy import CLIPPED, CLIPPED_LABELS, NOISED, WITHHELD
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.insights.privacy.rule import PrivacyRule
from tests.doubles.days import TurnedClock
from tests.unit.observing.doubles import batch, release

RULE = PrivacyRule(epsilon=2.0, days=1.0)
POLICY = InsightsPolicy(privacy=RULE)
PLACES = {"scores": 0, "features": 1}


class Accountant:
    """As much of dp-accounting as an agent asks: each window costs the same, and a period has room for three."""

    def __init__(self, trouble: str = "") -> None:
        self.asked: list[tuple[PrivacyRule, int, dict[float, int]]] = []
        self.trouble = trouble

    def __call__(self, rule: PrivacyRule, windows: int, spent: Mapping[float, int]) -> tuple[float, int]:
        self.asked.append((rule, windows, dict(spent)))
        if self.trouble:
            raise PlanError(self.trouble)
        return 5.0, 3 - sum(spent.values())


class Device:
    """All of observing, and an accountant that is a double."""

    def __init__(self, folder: Path, policy: InsightsPolicy = POLICY, trouble: str = "") -> None:
        self.folder, self.policy, self.clock = folder, policy, TurnedClock()
        self.accountant = Accountant(trouble)
        self.release = release()
        self.observing = self.open()

    def open(self) -> Observing:
        observing = Observing(self.folder / "agent.db", window_s=3600.0, clock=self.clock)
        observing.policy.take(self.policy.to_wire())
        observing.outbox._privacy = observing.privacy = Privacy(
            observing.store,
            observing.ledger,
            lambda: observing.policy.current,
            clip_of=observing._clip_of,
            window_s=3600.0,
            clock=self.clock,
            ask=self.accountant,
        )
        return observing

    def restart(self) -> None:
        self.observing.stop()
        self.observing = self.open()

    def answer(self, rows: int = 200, labels: int = 40) -> None:
        """Some predictions, labels for some of them, and the end of their window."""
        recorder, (inputs, outputs) = self.observing.recorder, batch(rows)
        scores, features = outputs["scores"], outputs["features"]
        times = (1_000_000, 500_000)
        recorder.record(self.release, f"p{self.clock.wall()}", inputs, (scores, features), PLACES, "", *times)
        items = [FeedbackItem(f"p{self.clock.wall()}", row % 4, row) for row in range(labels)]
        if items:
            assert recorder.feedback(items).accepted == labels
        self.clock.advance(1.0)
        assert recorder.flush()

    def leaving(self) -> Window:
        """The next window as it leaves."""
        (row,) = self.observing.outbox.send_next(1, 1 << 20)
        assert self.release.profile is not None
        return unpack(row.body, self.release.profile.schema)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.observing.stop()


def classes(device: Device) -> list[int]:
    return list(device.observing.ledger.by_release()[device.release.digest]["classes"])


def test_what_leaves_is_noised_and_the_ledger_says_what_left(device: Device) -> None:
    device.answer()
    counted = classes(device)
    left = device.leaving()
    assert left.arrays["privacy"][NOISED] == 200 == left.predictions
    assert left.arrays["classes"].tolist() != counted, "a deviation of 30 counts leaves four classes as they are never"
    assert classes(device) == left.arrays["classes"].tolist()
    assert (sum(counted), left.feedback) == (200, 40)
    assert left.arrays["head_fit_gram"].any() and left.arrays["feature_sum"].any(), "they were clipped as they came"
    assert left.arrays["privacy"][[CLIPPED, CLIPPED_LABELS]].tolist() == [0, 0]
    (again,) = device.observing.outbox.sent_rows(0, 10, 1 << 20)
    assert unpack(again.body, left.schema) == left, "noise is drawn once: two draws would tell more than one"
    assert device.observing.privacy.state().left == 2


def test_without_a_rule_windows_leave_as_they_were_counted(tmp_path: Path) -> None:
    device = Device(tmp_path, InsightsPolicy())
    device.answer()
    counted = classes(device)
    left = device.leaving()
    assert left.arrays["classes"].tolist() == counted and not left.arrays["privacy"].any()
    assert device.accountant.asked == [] and device.observing.privacy.state().epsilon == 0.0
    device.observing.stop()


def test_a_spent_budget_is_remembered_and_windows_say_their_volume_alone_until_the_next_period(device: Device) -> None:
    for _ in range(2):
        device.answer()
        assert device.leaving().arrays["privacy"][NOISED] == 200
    device.restart()
    for expected in ([200, 0], [0, 200], [0, 200]):
        device.answer()
        left = device.leaving()
        assert left.arrays["privacy"][[NOISED, WITHHELD]].tolist() == expected
    assert not left.arrays["classes"].any() and not left.arrays["head_fit_gram"].any()
    assert (left.predictions, left.feedback) == (200, 40)
    state = device.observing.privacy.state()
    assert (state.left, state.withheld, state.trouble) == (0, 2, "")
    assert device.accountant.asked[-1] == (RULE, 24, {5.0: 2})
    device.clock.advance(86_400.0)
    device.answer()
    assert device.leaving().arrays["privacy"][NOISED] == 200


def test_a_clock_that_jumps_while_the_agent_runs_ends_no_period(device: Device) -> None:
    for _ in range(3):
        device.answer()
        device.leaving()
    device.clock.set_wall(device.clock.wall() + 400 * 86_400.0)
    device.answer()
    assert device.leaving().arrays["privacy"][WITHHELD] == 200


def test_a_period_ends_while_the_agent_is_off(device: Device) -> None:
    for _ in range(3):
        device.answer()
        device.leaving()
    device.observing.stop()
    device.clock.advance(86_400.0)
    device.observing = device.open()
    device.answer()
    assert device.leaving().arrays["privacy"][NOISED] == 200


def test_without_the_accountant_volumes_leave_and_status_says_why(tmp_path: Path) -> None:
    device = Device(tmp_path, trouble="dp-accounting is not installed: pip install it")
    device.answer()
    assert device.leaving().arrays["privacy"][WITHHELD] == 200
    assert "pip install" in device.observing.privacy.state().trouble
    device.accountant.trouble = ""
    device.answer()
    assert device.leaving().arrays["privacy"][WITHHELD] == 200, "it is not asked again for each window"
    device.clock.advance(60.0)
    device.answer()
    assert device.leaving().arrays["privacy"][NOISED] == 200
    device.observing.stop()


def test_features_that_were_summed_before_the_policy_came_stay_here(tmp_path: Path) -> None:
    device = Device(tmp_path, InsightsPolicy())
    device.answer()
    device.observing.policy.take(InsightsPolicy(privacy=RULE).to_wire())
    left = device.leaving()
    assert left.arrays["privacy"][NOISED] == 200 and left.arrays["confusion"].any()
    assert not left.arrays["feature_sum"].any() and not left.arrays["head_fit_gram"].any()
    device.observing.stop()


def test_no_feature_vector_in_a_private_sum_is_longer_than_its_clip(device: Device) -> None:
    device.answer(rows=1, labels=0)
    clip = device.observing._clip_of(device.release.digest)
    assert clip is not None
    ((body,),) = device.observing.store.rows("SELECT body FROM outbox")
    assert device.release.profile is not None
    window = unpack(body, device.release.profile.schema)
    assert np.linalg.norm(window.arrays["feature_sum"]) <= clip * (1 + 1e-12)
    assert window.arrays["privacy"][CLIPPED] == 1


def test_segments_and_days_share_the_budget(tmp_path: Path) -> None:
    policy = InsightsPolicy(privacy=PrivacyRule(days=7.0), segment_field="camera", segment_values=("north", "south"))
    device = Device(tmp_path, policy)
    device.answer()
    device.leaving()
    assert device.accountant.asked[0][1] == 7 * 24 * 3
    device.observing.stop()


def test_the_real_accountant_answers_from_its_own_process() -> None:
    pytest.importorskip("dp_accounting", reason="pip install 'edgeloop[privacy]'")
    multiplier, left = ask(PrivacyRule(epsilon=1.0, delta=1e-6), 24, {})
    assert left == 24 and 20.0 < multiplier < 22.0


def test_an_accountant_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dp_accounting", reason="pip install 'edgeloop[privacy]'")
    with pytest.raises(PlanError, match="cannot be worked out"):
        ask(PrivacyRule(), -1, {})
    found: Any = "edge_agent.observing.privacy.find_spec"
    monkeypatch.setattr(found, lambda name: None)
    with pytest.raises(PlanError, match="pip install"):
        ask(PrivacyRule(), 24, {})
