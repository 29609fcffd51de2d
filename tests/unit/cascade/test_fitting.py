"""Thresholds: by the accuracy that is wanted, by the share there is, from all rows and from drawn ones alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.cascade.fitting import Tradeoff

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
