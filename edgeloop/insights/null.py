"""How far a window is from its reference by chance alone: the null distribution of the G statistic.

With p the unknown shares of the bins, the reference holds a sample of m rows and the window one of n. What is known of
p after the reference's counts r is Dirichlet(r + ½) (Jeffreys); for equal-mass edges that were fitted on the reference
itself this is also, nearly, the law of the bins' true shares. So: draw p, draw a window of n rows from it, take G
between that window and r. The law of G over many draws is the null distribution, with the reference's finite size in
it.

Far in the tail, where the draws are too few, it is the gamma distribution with the draws' mean and variance (G is
nearly χ², which is a gamma distribution), by Wilson and Hilferty's formula (1931), whose quantile is up to 3 % too high
there: on the careful side.

The law does not depend on the order of the bins, and equal-mass histograms have nearly the same counts in all of them:
few laws serve all aspects of a release.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from edgeloop.insights.sizes import Array, Floats
from edgeloop.records import dataclass

#: The mean and the variance are then known to 1 and 4 %, which moves the threshold by about 2 %.
DRAWS = 2_000
#: Window sizes are rounded to powers of this, so that few null distributions serve all windows: from 64 rows on the
#: threshold changes by less than 3 % from one to the next.
SIZE_STEP = 2.0
#: Counts of a reference above this are rounded down to powers of `COUNT_STEP`, so that one law serves all aspects of a
#: reference that grows: the law is then that of a reference smaller by 4 % at most, which is on the careful side.
EXACT_COUNT = 64
COUNT_STEP = 2.0 ** (1 / 16)
#: The empirical law counts only where this many draws lie above.
_DRAWS_ABOVE = 20
#: Numbers that are drawn at once: 2,000 draws of many classes would take 100 MB, on a device too.
_DRAWN_AT_ONCE = 100_000


@dataclass(frozen=True, eq=False)
class Null:
    """The law of G by chance, for one reference and one size of the window.

    Attributes:
        mean: of the draws.
        variance: of the draws.
        above: the draws above their median, float32, rising.
    """

    mean: float
    variance: float
    above: Array

    def threshold(self, alpha: float) -> float:
        """What chance exceeds with probability ``alpha``."""
        tail = _gamma_quantile(self.mean, self.variance, alpha)
        rank = len(self.above) - max(_DRAWS_ABOVE, round(alpha * DRAWS))
        return max(tail, float(self.above[max(rank, 0)]))

    def p_values(self, statistics: Floats) -> Floats:
        """The probability with which chance exceeds each value; at least ½ below the median."""
        tail = _gamma_tail(self.mean, self.variance, statistics)
        above = len(self.above) - np.searchsorted(self.above, statistics)
        return np.where(above >= _DRAWS_ABOVE, np.maximum(tail, above / DRAWS), tail)


def g_statistic(window: Array, reference: Array) -> Floats:
    """Two-sample G: 2 Σ observed · ln(observed / expected under pooled shares), which is ≥ 0.

    Args:
        window: counts [..., B].
        reference: counts [..., B].

    Returns:
        float64 [...]; 0 where either side is empty.
    """
    w, r = np.asarray(window, np.float64), np.asarray(reference, np.float64)
    n, m = w.sum(axis=-1), r.sum(axis=-1)
    both = w + r
    total = _xlogx(w).sum(axis=-1) + _xlogx(r).sum(axis=-1) - _xlogx(both).sum(axis=-1)
    return np.asarray(np.maximum(2 * (total - _xlogx(n) - _xlogx(m) + _xlogx(n + m)), 0.0))


def nulls(reference: Array, window_size: int) -> tuple[Null, ...]:
    """The laws at the two rounded sizes next to a window's; the careful one of each answer is to be taken.

    Args:
        reference: counts [B], their sum > 0.
        window_size: n > 0.
    """
    step = math.log(max(window_size, 1)) / math.log(SIZE_STEP)
    sizes = sorted({max(1, round(SIZE_STEP**power)) for power in (math.floor(step), math.ceil(step))})
    key = tuple(sorted(_rounded(reference)))
    return tuple(_null(key, size) for size in sizes)


def threshold(reference: Array, window_size: int, alpha: float) -> float:
    """The value of G that a window of this size exceeds by chance with probability ``alpha``, 0 < alpha < 1."""
    return max(null.threshold(alpha) for null in nulls(reference, window_size))


def p_values(statistics: Floats, reference: Array, window_sizes: Array) -> Floats:
    """The probability with which chance exceeds each statistic.

    Args:
        statistics: G of many windows, float64 [D].
        reference: counts [B] of the one reference, their sum > 0.
        window_sizes: rows of each window, [D]; 1 is returned for an empty one.

    Returns:
        float64 [D].
    """
    sizes = np.asarray(window_sizes, np.int64)
    found = np.where(sizes > 0, 0.0, 1.0)
    # One pass for each two neighbouring rounded sizes, not one for each window.
    steps = np.log(np.maximum(sizes, 1)) / math.log(SIZE_STEP)
    neighbours = np.floor(steps) + np.ceil(steps)
    for pair in np.unique(neighbours[sizes > 0]):
        chosen = np.flatnonzero((neighbours == pair) & (sizes > 0))
        for null in nulls(reference, int(sizes[chosen[0]])):
            found[chosen] = np.maximum(found[chosen], null.p_values(statistics[chosen]))
    return found


def normal_tail(deviates: Floats) -> Floats:
    """P(Z > z) of each standard normal deviate; precise also far out, where 1 - Φ would be 0."""
    flat = np.asarray(deviates, np.float64).ravel()
    return np.array([0.5 * math.erfc(z / math.sqrt(2)) for z in flat]).reshape(np.shape(deviates))


def normal_quantile(probability: float) -> float:
    """The z that a standard normal deviate exceeds with this probability."""
    return -NormalDist().inv_cdf(probability)


@lru_cache(maxsize=1024)
def _null(reference: tuple[int, ...], size: int) -> Null:
    counts = np.array(reference, dtype=np.float64)
    # The same counts give the same threshold everywhere: no clock, no salt.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((len(reference), size, *reference))))
    draws = np.empty(DRAWS)
    at_once = max(1, _DRAWN_AT_ONCE // len(counts))
    for start in range(0, DRAWS, at_once):
        some = min(at_once, DRAWS - start)
        shares = generator.standard_gamma(counts + 0.5, size=(some, len(counts)))
        shares /= shares.sum(axis=1, keepdims=True)
        draws[start : start + some] = g_statistic(generator.multinomial(size, shares), counts)
    draws.sort()
    return Null(float(draws.mean()), float(draws.var()), draws[DRAWS // 2 :].astype(np.float32))


def _rounded(reference: Array) -> list[int]:
    counts = np.asarray(reference, np.float64)
    # A hair more than the count: what is a power already stays one.
    steps = np.floor(np.log(np.maximum(counts, 1) * (1 + 1e-9)) / math.log(COUNT_STEP))
    coarse = np.floor(COUNT_STEP**steps)
    return [int(count) for count in np.where(counts > EXACT_COUNT, coarse, counts)]


def _gamma_quantile(mean: float, variance: float, alpha: float) -> float:
    if variance == 0.0:
        return mean
    shape = mean * mean / variance
    cube = 1 - 1 / (9 * shape) + normal_quantile(alpha) / (3 * math.sqrt(shape))
    return mean * max(cube, 0.0) ** 3


def _gamma_tail(mean: float, variance: float, values: Floats) -> Floats:
    if variance == 0.0:
        return np.where(values > mean, 0.0, 1.0)
    shape = mean * mean / variance
    return normal_tail(3 * math.sqrt(shape) * (np.cbrt(values / mean) - 1 + 1 / (9 * shape)))


def _xlogx(x: Array) -> Floats:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
