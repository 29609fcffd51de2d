"""Did the mean of a feature move? From the sums of the values and of their squares alone, on both sides.

Features of a network are seldom normal: after a ReLU most are zero and few are large, and at the levels that a test
among hundreds of features needs, a normal distribution would alarm a hundred times too often for windows of a hundred
rows. Two moments say no more than mean and spread, so the skew is taken at its usual worst: that of the gamma
distribution with this mean and spread. If x is gamma with shape k = mean² / variance, the ratio of two means is F with
2nk and 2mk degrees of freedom, the profile's finite size m included. Where that is lighter than the normal distribution
(a mean that falls), the normal one counts. Both are expressed as standard normal deviates, F's by Paulson's formula
(1942), and the smaller one is taken.

Simulated in ``tests/unit/insights/test_mean_shift.py``: exponential, rectified normal, sparse and log-normal features.
"""

from __future__ import annotations

import math

import numpy as np

from edgeloop.insights.sizes import Array, Floats

#: A feature is tested where its sums count at least so many rows' worth, n · mean² / (mean² + variance), in the window
#: and in the reference: the number of rows with a value, for one that is mostly zero. Below, nobody knows its tail.
LEAST_ROWS = 8.0


def mean_deviates(
    sums: Array, squares: Array, rows: Array, reference_sums: Array, reference_squares: Array, reference_rows: int
) -> tuple[Floats, Floats]:
    """How far each feature's mean is from the reference's.

    Args:
        sums: Σx of each window, float64 [D, F].
        squares: Σx², float64 [D, F].
        rows: rows of each window, [D], > 0.
        reference_sums: Σx of the reference, float64 [F].
        reference_squares: Σx², float64 [F].
        reference_rows: > 0.

    Returns:
        deviates float64 [D, F]: a standard normal deviate that is exceeded by chance at most as often as its own tail
        on both sides, 0 where nothing can be said; shifts float64 [D, F]: the difference of the means in units of the
        reference's spread, signed.
    """
    n, m = np.asarray(rows, np.float64)[:, None], float(reference_rows)
    mean, normal = sums / n, reference_sums / m
    pooled = (sums + reference_sums) / (n + m)
    variance = np.maximum((squares + reference_squares) / (n + m) - pooled * pooled, 0.0)
    spread = np.sqrt(np.maximum(reference_squares / m - normal * normal, 0.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shift = mean - normal
        plain = np.abs(shift) / np.sqrt(variance * (1 / n + 1 / m))
        shape = pooled * pooled / variance
        # Counted from zero towards the side where the feature lies.
        side = np.sign(pooled)
        ours, theirs = np.maximum(side * mean, 0.0), np.maximum(side * normal, 0.0)
        up = ours > theirs
        skewed = _paulson(
            np.maximum(ours, theirs) / np.minimum(ours, theirs),
            2 * shape * np.where(up, n, m),
            2 * shape * np.where(up, m, n),
        )
        worth = np.minimum(n, m) * pooled * pooled / (pooled * pooled + variance)
        deviates = np.where((worth >= LEAST_ROWS) & (variance > 0), np.minimum(plain, skewed), 0.0)
        shifts = np.where(spread > 0, shift / np.where(spread > 0, spread, 1.0), np.sign(shift) * np.inf)
    return np.nan_to_num(deviates, nan=0.0), np.where(shift == 0, 0.0, shifts)


def moved_mass(shifts: Floats) -> Floats:
    """A shift in units of the spread as the share of the mass that moves: that of two normal distributions, 0…1."""
    return np.array([math.erf(abs(d) / (2 * math.sqrt(2))) for d in shifts.ravel()]).reshape(shifts.shape)


def _paulson(ratio: Floats, upper: Floats, lower: Floats) -> Floats:
    """The normal deviate of an F ratio ≥ 1 with these degrees of freedom."""
    a, b = 2 / (9 * upper), 2 / (9 * lower)
    # As (…)/sqrt(b + a / root²), which is finite where the smaller mean is 0.
    inverse = 1 / np.cbrt(ratio)
    return ((1 - b) - (1 - a) * inverse) / np.sqrt(b + a * inverse * inverse)
