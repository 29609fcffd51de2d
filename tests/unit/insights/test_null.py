"""The thresholds: false alarms come as often as asked for, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgeloop.insights.binning import count_bins, equal_mass_edges
from edgeloop.insights.null import _gamma_quantile, g_statistic, threshold

ALPHA = 0.05
REPEATS = 1500


def within(hits: int, alpha: float, repeats: int) -> bool:
    """Whether the hits are compatible with a rate of at most alpha; a right code fails once in 100,000."""
    return hits <= stats.binom.ppf(1 - 1e-5, repeats, alpha)


@pytest.mark.parametrize("reference_size", [60, 133, 350, 3000])
@pytest.mark.parametrize("size", [20, 100, 600, 20_000])
def test_equal_mass_bins_fitted_on_the_reference_itself(reference_size: int, size: int) -> None:
    rng = np.random.default_rng(reference_size * size)
    data = rng.random((REPEATS, reference_size))
    edges = equal_mass_edges(data, 10)
    references = count_bins(data, edges)
    shares = np.diff(np.c_[np.zeros(REPEATS), edges, np.ones(REPEATS)], axis=1)
    g = g_statistic(rng.multinomial(size, shares), references)
    limit = threshold(references[0], size, ALPHA)
    hits = int((g > limit).sum())
    assert within(hits, 1.35 * ALPHA, REPEATS), hits / REPEATS
    assert hits > 0.4 * ALPHA * REPEATS  # and not far too careful


@pytest.mark.parametrize("size", [50, 400, 5000])
def test_a_class_mix_with_rare_classes(size: int) -> None:
    rng = np.random.default_rng(size)
    mix = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.007, 0.002, 0.001])
    hits = 0
    for reference in rng.multinomial(200, mix, size=40):
        g = g_statistic(rng.multinomial(size, mix, size=50), reference[None])
        hits += int((g > threshold(reference, size, ALPHA)).sum())
    assert hits / 2000 < 1.6 * ALPHA


def test_the_statistic_is_twice_the_likelihood_ratio() -> None:
    window, reference = np.array([10, 20, 30]), np.array([30, 20, 10])
    table = np.array([window, reference])
    expected = stats.contingency.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert g_statistic(window, reference) == pytest.approx(expected)


def test_the_statistic_of_equal_shares_is_zero() -> None:
    assert g_statistic(np.array([10, 0, 20]), np.array([20, 0, 40])) == pytest.approx(0, abs=1e-9)
    assert g_statistic(np.zeros(3), np.array([1, 2, 3])) == 0


def test_the_threshold_is_the_same_at_every_call() -> None:
    reference = np.full(10, 30)
    from edgeloop.insights import null

    first = threshold(reference, 250, 1e-4)
    null._threshold.cache_clear()
    null._null.cache_clear()
    assert threshold(reference, 250, 1e-4) == first


def test_smaller_alphas_have_higher_thresholds() -> None:
    reference = np.full(10, 30)
    found = [threshold(reference, 250, alpha) for alpha in (0.2, 0.05, 0.01, 1e-3, 1e-5)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(stats.chi2.ppf(1 - 1e-5, 9), rel=0.15)


@pytest.mark.parametrize("probability", [0.99, 0.9999, 0.999999])
@pytest.mark.parametrize("shape", [2.0, 4.5, 20.0])
def test_the_tail_is_that_of_a_gamma_distribution(shape: float, probability: float) -> None:
    exact = stats.gamma.ppf(probability, shape, scale=2.0)
    found = _gamma_quantile(2 * shape, 4 * shape, probability)
    assert 0.999 * exact < found < 1.06 * exact  # never an alarm more than asked for
