"""The budget of escalations over restarts: what was spent stays spent, however the agent ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.escalating.allowance import Allowance
from edge_agent.observing.store import Store
from edgeloop.cascade.policy import EscalationPolicy

NOON = 1_000_000 * 86_400.0 + 43_200.0
SIZE = 700


def spend(allowance: Allowance, most: int, now: float = NOON, size: int = SIZE) -> int:
    """Escalate as the escalator does, until the budget says no; returns how many have left."""
    left = 0
    while left < most and allowance.take(size, now):
        ahead = allowance.ahead(now)
        if ahead is not None:
            allowance.remember(ahead)
        left += 1
    return left


@pytest.mark.parametrize("limits", [{"per_hour": 300}, {"per_day": 300}, {"bytes_per_hour": 300 * SIZE + 699}])
def test_no_kill_frees_a_budget(tmp_path: Path, limits: dict[str, int]) -> None:
    policy, left, lives = EscalationPolicy(mode="async", **limits), 0, 0
    while True:
        store = Store(tmp_path / "agent.db")
        lived = spend(Allowance(store, policy), 50)
        left, lives = left + lived, lives + 1
        store.close(clean=False)  # and the allowance is lost, as by SIGKILL
        if not lived:
            break
        assert lives < 20
    assert left <= 300, "the budget holds"
    assert left >= 300 - 6 * 4, "and a killed agent loses a few only"


def test_an_orderly_end_loses_nothing(tmp_path: Path) -> None:
    policy = EscalationPolicy(mode="async", per_day=1000)
    for expected in (600, 400, 0):
        store = Store(tmp_path / "agent.db")
        allowance = Allowance(store, policy)
        assert spend(allowance, 600) == expected
        assert allowance.spent(NOON) == (expected < 600)
        allowance.close()
        store.close(clean=True)


def test_without_a_budget_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    allowance = Allowance(store, EscalationPolicy(mode="async"))
    assert allowance.take(SIZE, NOON) and allowance.ahead(NOON) is None
    allowance.use(EscalationPolicy(mode="async", per_day=1))
    assert allowance.spent(NOON), "what was spent before there was a budget counts"
    store.close(clean=True)


def test_a_new_day_has_a_new_budget_and_a_larger_message_a_smaller_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    allowance = Allowance(store, EscalationPolicy(mode="async", bytes_per_day=10_000))
    assert spend(allowance, 100, size=4000) == 2
    assert spend(allowance, 100, size=1000) == 2
    assert spend(allowance, 100, NOON + 86_400, size=4000) == 2
    store.close(clean=True)


def test_what_a_release_has_taught_outlives_a_restart_and_no_other_release(tmp_path: Path) -> None:
    policy = EscalationPolicy(mode="async", max_share=1.0, floor=1.0)
    store = Store(tmp_path / "agent.db")
    allowance = Allowance(store, policy)
    random = np.random.default_rng(1)
    signals = np.concatenate([random.random((60, 4)), np.zeros((60, 1)), random.normal(size=(60, 3))], axis=1)
    assert allowance.draw("first", 3, "a", signals, NOON).drawn.all()
    for row in signals:
        allowance.learn("first", row, 1, 1.0)
        allowance.learn("second", row, 2, 1.0)  # late: that release does not answer any more
    share, learned = allowance.share, allowance._steering.learner.answers  # type: ignore[union-attr]
    assert learned == 60
    allowance.close()
    again = Allowance(store, policy)
    again.draw("first", 3, "b", signals[:1], NOON)
    assert again._steering.learner.answers == 60  # type: ignore[union-attr]
    assert again.share == pytest.approx(share, abs=0.01)
    again.draw("second", 3, "c", signals[:1], NOON)
    assert again._steering.learner.answers == 0  # type: ignore[union-attr]
    store.set_note("escalation/spent", b"damaged")
    store.set_note("escalation/steering", b"damaged")
    assert not Allowance(store, policy).spent(NOON)
    store.close(clean=True)
