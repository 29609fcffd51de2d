"""Thresholds: by the accuracy that is wanted, by the share there is, from all rows and from drawn ones alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.cascade.drawing import chances
from edgeloop.cascade.fitting import Choice, Tradeoff, choose
from edgeloop.cascade.hardness import log_odds

HARDNESS = np.array([0.9, 0.7, 0.7, 0.4, 0.1])
EDGE = np.array([False, False, True, True, True])
TEACHER = np.array([True, True, True, True, False])


def test_the_whole_curve() -> None:
    curve = Tradeoff.of(HARDNESS, EDGE, TEACHER)
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.7, 0.4, 0.1]
    assert np.allclose(curve.shares, [0, 0.2, 0.6, 0.8, 1.0])
    assert np.allclose(curve.accuracies, [0.6, 0.8, 1.0, 1.0, 0.8])
    assert curve.at(0.4) == pytest.approx(0.9)


def test_a_threshold_for_an_accuracy_escalates_no_more_than_it_needs() -> None:
    curve = Tradeoff.of(HARDNESS, EDGE, TEACHER)
    assert curve.for_accuracy(0.75) == 0.9
    assert curve.for_accuracy(0.99) == 0.7
    assert curve.for_accuracy(0.5) == 1.0
    assert Tradeoff.of(HARDNESS, EDGE, EDGE).for_accuracy(0.7) is None


def test_a_threshold_for_a_share_spends_it_only_where_it_helps() -> None:
    curve = Tradeoff.of(HARDNESS, EDGE, TEACHER)
    assert curve.for_share(0.2) == 0.9
    assert curve.for_share(0.59) == 0.9
    assert curve.for_share(1.0) == 0.7
    assert curve.for_share(0.0) == 1.0


def test_drawn_rows_stand_for_all_by_the_inverse_of_their_chance() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.uniform(size=20_000)
    edge, teacher = rng.uniform(size=20_000) > hardness, rng.uniform(size=20_000) > 0.05
    chance = np.clip(hardness, 0.05, 1.0)
    drawn = rng.uniform(size=20_000) < chance
    whole = Tradeoff.of(hardness, edge, teacher)
    part = Tradeoff.of(hardness[drawn], edge[drawn], teacher[drawn], 1 / chance[drawn])
    for share in (0.0, 0.2, 0.5, 0.9):
        assert part.at(share) == pytest.approx(whole.at(share), abs=0.02)


def test_rows_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Tradeoff.of(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool))
    with pytest.raises(ValueError, match="above 0"):
        Tradeoff.of(HARDNESS, EDGE, TEACHER, np.zeros(5))


def test_the_curve_of_a_device_is_that_of_its_draws() -> None:
    rng = np.random.default_rng(1)
    hardness = rng.beta(1, 4, 3000)
    edge, teacher = rng.uniform(size=3000) > hardness, rng.uniform(size=3000) > 0.05
    soft = Tradeoff.drawn(hardness, edge, teacher, softness=0.1, floor=0.02)
    threshold = soft.nearest(0.2)
    chance = chances(log_odds(hardness), float(log_odds(np.array(threshold))), 0.1, 0.02)
    assert soft.share_of(threshold) == pytest.approx(chance.mean()) == pytest.approx(0.2, abs=0.01)
    expected = (edge + chance * (teacher.astype(float) - edge)).mean()
    assert soft.at(soft.share_of(threshold)) == pytest.approx(expected, abs=0.002)
    assert soft.shares[0] == 0.02 and (np.diff(soft.shares) >= 0).all() and soft.effective == 3000
    # With next to no softness and no floor it is the rule's own curve.
    hard = Tradeoff.drawn(hardness, edge, teacher, softness=1e-6, floor=0.0)
    whole = Tradeoff.of(hardness, edge, teacher)
    for share in (0.1, 0.4, 0.8):
        assert hard.at(share) == pytest.approx(whole.at(share), abs=0.01)


def test_a_choice_says_what_it_misses() -> None:
    curve = Tradeoff.of(HARDNESS, EDGE, TEACHER)
    assert choose(curve, accuracy=0.75, share=None, max_share=1.0) == Choice(
        0.9, pytest.approx(0.2), pytest.approx(0.8)
    )
    poor = choose(curve, accuracy=0.95, share=None, max_share=0.3)
    assert (poor.threshold, poor.missed) == (
        0.9, "an accuracy of 0.95 takes a share of 0.60; the budget rules, a share of 0.3",
    )  # fmt: skip
    never = choose(Tradeoff.of(HARDNESS, EDGE, EDGE), accuracy=0.9, share=None, max_share=0.5)
    assert never.missed.startswith("an accuracy of 0.9 is out of reach: 0.600 is the most")
    assert never.share == 0.0, "a teacher that is no better is not asked for nothing"
    assert choose(curve, accuracy=None, share=0.55, max_share=1.0).threshold == 0.7
    assert choose(curve, accuracy=None, share=0.9, max_share=0.2).threshold == 0.9


def test_a_threshold_moves_for_more_than_chance() -> None:
    rng = np.random.default_rng(2)
    for rows, moves in ((60, False), (6000, True)):
        hardness = rng.uniform(size=rows)
        right = np.ones(rows, bool)
        curve = Tradeoff.of(hardness, right, right)
        assert curve.moved(curve.nearest(0.25), curve.nearest(0.2)) is moves
        assert not curve.moved(curve.nearest(0.21), curve.nearest(0.2))
