"""How far a window is from its reference by chance alone: the null distribution of the G statistic.

With p the unknown shares of the bins, the reference holds a sample of m rows and the window one of n. What is known of
p after the reference's counts r is Dirichlet(r + ½) (Jeffreys); for equal-mass edges that were fitted on the reference
itself this is also, nearly, the law of the bins' true shares. So: draw p, draw a window of n rows from it, take G
between that window and r. The law of G over many draws is the null distribution, with the reference's finite size in
it.

Far in the tail, where the draws are too few, the quantile is that of the gamma distribution with the draws' mean and
variance (G is nearly χ², which is a gamma distribution), by Wilson and Hilferty's formula (1931), which is up to 3 %
too high there: on the careful side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from edgeloop.insights.sizes import Array, Floats

#: The mean and the variance are then known to 1 and 4 %, which moves the threshold by about 2 %.
DRAWS = 2_000
#: Window sizes are rounded to powers of this, so that few null distributions serve all windows: from 64 rows on the
#: threshold changes by less than 3 % from one to the next.
SIZE_STEP = 2.0
#: The empirical quantile counts only where this many draws lie above it.
_DRAWS_ABOVE = 20


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


def threshold(reference: Array, window_size: int, alpha: float) -> float:
    """The value of G that a window of this size exceeds by chance with probability ``alpha``.

    Args:
        reference: counts [B], their sum > 0.
        window_size: n > 0. The larger of the thresholds at the neighbouring rounded sizes is taken.
        alpha: 0 < alpha < 1.
    """
    step = math.log(max(window_size, 1)) / math.log(SIZE_STEP)
    sizes = {max(1, round(SIZE_STEP**power)) for power in (math.floor(step), math.ceil(step))}
    key = tuple(int(count) for count in reference)
    return max(_threshold(key, size, alpha) for size in sizes)


@lru_cache(maxsize=8192)
def _threshold(reference: tuple[int, ...], size: int, alpha: float) -> float:
    draws = _null(reference, size)
    mean, variance = float(draws.mean()), float(draws.var())
    if variance == 0.0:
        return mean
    tail = _gamma_quantile(mean, variance, 1.0 - alpha)
    if alpha * DRAWS >= _DRAWS_ABOVE:
        tail = max(tail, float(np.quantile(draws, 1.0 - alpha)))
    return tail


@lru_cache(maxsize=1024)
def _null(reference: tuple[int, ...], size: int) -> Floats:
    counts = np.array(reference, dtype=np.float64)
    # The same counts give the same threshold everywhere: no clock, no salt.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((len(reference), size, *reference))))
    shares = generator.standard_gamma(counts + 0.5, size=(DRAWS, len(counts)))
    shares /= shares.sum(axis=1, keepdims=True)
    return g_statistic(generator.multinomial(size, shares), counts)


def _gamma_quantile(mean: float, variance: float, probability: float) -> float:
    shape = mean * mean / variance
    cube = 1 - 1 / (9 * shape) + NormalDist().inv_cdf(probability) / (3 * math.sqrt(shape))
    return mean * max(cube, 0.0) ** 3


def _xlogx(x: Array) -> Floats:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
