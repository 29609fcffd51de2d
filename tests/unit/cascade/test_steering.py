"""Steering: shares and budgets hold whatever comes, and the chances that are told are those of the draw."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeloop.cascade.budget import Budget, Room
from edgeloop.cascade.hardness import WIDTH
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.cascade.steering import Steering

POLICY = EscalationPolicy(mode="async", signals=("confidence",))
NOW = 1_800_000_000.0


def _rows(hardness: np.ndarray) -> np.ndarray:
    signals = np.zeros((len(hardness), WIDTH))
    signals[:, 0] = hardness
    return signals


def _stream(steering: Steering, hardness: np.ndarray, room: Room | None = None) -> tuple[np.ndarray, np.ndarray]:
    drawn, chance = np.zeros(len(hardness), dtype=bool), np.zeros(len(hardness))
    for number, one in enumerate(hardness):
        draw = steering.draw(f"s-{number}", _rows(np.array([one])), NOW + number / 10, room)
        drawn[number], chance[number] = draw.drawn[0], draw.probability[0]
    return drawn, chance


def test_easy_inputs_are_seldom_escalated_and_never_never() -> None:
    drawn, chance = _stream(Steering(POLICY, 10), np.full(2000, 0.01))
    assert chance.min() >= 0.02 and chance.max() < 0.025
    assert 10 < drawn.sum() < 80


def test_the_share_holds_when_everything_is_hard() -> None:
    steering = Steering(POLICY, 10)
    drawn, chance = _stream(steering, np.random.default_rng(1).uniform(0.6, 1.0, 3000))
    assert drawn.mean() < 0.2 + 0.04
    assert chance[1000:].mean() == pytest.approx(0.2, abs=0.01)
    assert steering.share == pytest.approx(0.2, abs=0.08)
    assert steering.threshold > 0.6


def test_of_hard_inputs_the_hardest_are_escalated() -> None:
    hardness = np.random.default_rng(2).uniform(0.5, 1.0, 3000)
    drawn, _ = _stream(Steering(POLICY, 10), hardness)
    assert hardness[1000:][drawn[1000:]].mean() > hardness.mean() + 0.15


def test_the_threshold_comes_back_when_the_burst_is_over() -> None:
    steering = Steering(POLICY, 10)
    _stream(steering, np.full(500, 0.9))
    _stream(steering, np.full(500, 0.05))
    assert steering.threshold == pytest.approx(POLICY.threshold)


def test_what_is_told_is_the_chance_of_the_draw() -> None:
    """The weighted sum over the drawn rows estimates that over all rows (Horvitz and Thompson 1952)."""
    hardness = np.random.default_rng(3).uniform(0.0, 1.0, 8000)
    drawn, chance = _stream(Steering(POLICY, 10), hardness)
    assert (drawn[chance > 0.5]).mean() == pytest.approx(chance[chance > 0.5].mean(), abs=0.04)
    estimate = (hardness[drawn] / chance[drawn]).sum()
    assert estimate == pytest.approx(hardness.sum(), rel=0.15)


def test_a_batch_is_drawn_as_its_rows_would_be() -> None:
    steering = Steering(POLICY, 10)
    draw = steering.draw("batch", _rows(np.random.default_rng(4).uniform(0.4, 1.0, 4000)), NOW)
    assert draw.drawn.mean() == pytest.approx(0.2, abs=0.03)
    assert draw.hardness.shape == draw.probability.shape == (4000,)


def test_audits_are_drawn_whatever_the_answer() -> None:
    hardness = np.concatenate([np.full(2000, 0.01), np.full(2000, 0.99)])
    draw = Steering(replace(POLICY, floor=0.1), 10).draw("audits", _rows(hardness), NOW)
    assert draw.audit[:2000].mean() == pytest.approx(0.1, abs=0.02)
    assert draw.audit[2000:].mean() == pytest.approx(0.1, abs=0.02)
    assert not (draw.audit & ~draw.drawn).any()


def test_nothing_is_escalated_while_the_hub_cannot_answer() -> None:
    steering = Steering(POLICY, 10)
    steering.cool(NOW)
    during = steering.draw("a", _rows(np.ones(50)), NOW + POLICY.cooldown_s / 2)
    assert not during.drawn.any() and not during.probability.any()
    assert steering.draw("a", _rows(np.ones(50)), NOW + POLICY.cooldown_s).drawn.any()


def test_a_budget_lasts_through_its_hour_and_is_never_exceeded() -> None:
    policy = replace(POLICY, per_hour=60)
    steering, budget = Steering(policy, 10), Budget.of(policy)
    start, sent = NOW // 3600 * 3600, np.zeros(7200, dtype=int)
    for number in range(7200):  # two predictions a second for an hour, all of them hard
        now = start + number / 2
        draw = steering.draw(f"b-{number}", _rows(np.array([0.9])), now, budget.room(now, 100))
        if draw.drawn[0]:
            budget.spend(now, 1, 100)
        sent[number] = draw.drawn[0]
    assert sent.sum() <= 60
    assert sent[:3600].sum() < 45 and sent[5400:].sum() > 2


def test_of_a_batch_no_more_are_drawn_than_there_is_room_for() -> None:
    draw = Steering(POLICY, 10).draw("b", _rows(np.ones(200)), NOW, Room(3, math.inf))
    assert draw.drawn.sum() == 3
    last = np.flatnonzero(draw.drawn)[-1]
    assert not draw.probability[last + 1 :].any()


def test_a_share_of_nothing_draws_nothing() -> None:
    assert not Steering(replace(POLICY, max_share=0.0), 10).draw("a", _rows(np.ones(9)), NOW).drawn.any()


def test_a_restart_goes_on_where_it_was() -> None:
    steering = Steering(POLICY, 10)
    _stream(steering, np.full(300, 0.9))
    again = Steering(POLICY, 10, steering.plain())
    assert again.threshold == steering.threshold and again.share == steering.share


@pytest.mark.parametrize("plain", [None, [], {"threshold": "x", "share": math.nan}, {"learned": {"rows": b"abc"}}])
def test_what_no_steering_told_is_left_alone(plain: object) -> None:
    steering = Steering(POLICY, 10, plain)  # type: ignore[arg-type]
    assert steering.threshold == pytest.approx(POLICY.threshold) and steering.share == 0
