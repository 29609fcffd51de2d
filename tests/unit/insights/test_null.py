"""The law of G by chance: p-values say the same as thresholds, and come as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeloop.insights.null import DRAWS, g_statistic, normal_quantile, normal_tail, nulls, p_values, threshold


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01, 0.001, 1e-5, 1e-8])
@pytest.mark.parametrize("rows", [50, 128, 700])
def test_p_values_and_thresholds_say_the_same(alpha: float, rows: int) -> None:
    reference = np.full(10, 20)
    limit = threshold(reference, rows, alpha)
    around = np.array([0.99 * limit, 1.01 * limit])
    above, below = p_values(around, reference, np.array([rows, rows]))
    assert below < alpha < above * 1.05 or (alpha < 0.01 and above == pytest.approx(0.01, abs=0.002))


def test_p_values_are_uniform_when_nothing_changed() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(10, 20.5), 4000)  # what equal-mass bins of 200 rows are really like
    reference = np.full(10, 20)
    windows = rng.multinomial(150, shares)
    p = p_values(g_statistic(windows, reference), reference, np.full(4000, 150))
    for alpha in (0.2, 0.05, 0.01):
        # The careful one of two sizes is taken, so somewhat fewer; 99.9 % bounds.
        room = 3.3 * math.sqrt(4000 * alpha)
        assert 0.7 * 4000 * alpha - room <= (p < alpha).sum() <= 4000 * alpha + room


def test_the_order_of_the_bins_and_the_number_of_windows_change_nothing() -> None:
    rng = np.random.default_rng(1)
    reference = rng.integers(5, 40, 10)
    windows = rng.multinomial(90, np.full(10, 0.1), 30)
    sizes = np.concatenate([np.full(15, 90), np.full(15, 64)])
    statistics = g_statistic(windows, reference)
    together = p_values(statistics, reference, sizes)
    alone = [p_values(statistics[i : i + 1], reference[::-1], sizes[i : i + 1])[0] for i in range(30)]
    assert together.tolist() == alone


def test_an_empty_window_says_nothing() -> None:
    assert p_values(np.zeros(2), np.full(10, 5), np.array([0, 64]))[0] == 1.0


def test_many_classes_are_drawn_in_parts() -> None:
    (null,) = nulls(np.full(1000, 5), 1024)
    assert len(null.above) == DRAWS // 2 and null.mean == pytest.approx(999 * (1024 + 5000) / 5000, rel=0.15)


@pytest.mark.parametrize("z", [0.0, 1.0, 5.0, 20.0])
def test_the_normal_tail_is_precise_far_out(z: float) -> None:
    p = float(normal_tail(np.array([z]))[0])
    assert p > 0 and normal_quantile(p) == pytest.approx(z, abs=1e-6)
