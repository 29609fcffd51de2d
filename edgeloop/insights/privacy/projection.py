"""From noised sums to sums that some rows can have: counts that add up, scatter that is not negative.

This looks at noised numbers and public totals only, so it costs no privacy. It is what keeps a noised window within the
checks of ``edgeloop.insights.aspects``, and it takes out much of the noise where little was counted.
"""

from __future__ import annotations

import numpy as np

from edgeloop.insights.sizes import Floats, Ints


def counts_with_total(noisy: Floats, total: int) -> Ints:
    """The counts nearest to ``noisy`` that are not negative and add up to ``total``.

    Args:
        noisy: float64 [B].
        total: ≥ 0.

    Returns:
        int64 [B].
    """
    return _rounded(on_simplex(noisy, total), total)


def on_simplex(values: Floats, total: float) -> Floats:
    """The nearest numbers that are not negative and add up to ``total`` (Duchi et al. 2008, figure 1).

    Args:
        values: float64 [B].
        total: ≥ 0.
    """
    if total <= 0:
        return np.zeros_like(values)
    descending = np.sort(values)[::-1]
    excess = (np.cumsum(descending) - total) / np.arange(1, len(values) + 1)
    level = excess[np.flatnonzero(descending >= excess)[-1]]
    return np.asarray(np.maximum(values - level, 0.0))


def _rounded(values: Floats, total: int) -> Ints:
    """Whole numbers next to ``values`` that add up to ``total``: the largest remainders are rounded up."""
    whole = np.floor(values)
    counts = whole.astype(np.int64)
    # The projection adds up to the total but for rounding, so what is missing is between 0 and B.
    missing = min(max(total - int(counts.sum()), 0), len(counts))
    counts[np.argsort(whole - values, kind="stable")[:missing]] += 1
    counts[counts.argmax()] += total - int(counts.sum())
    return counts


def moments(sums: Floats, squares: Floats, count: int, clip: float) -> tuple[Floats, Floats]:
    """Sums and sums of squares that ``count`` vectors of at most the length ``clip`` can have: Σx² ≥ 0, (Σx)² ≤ n Σx².

    Args:
        sums: noised Σx, float64 [F].
        squares: noised Σx², float64 [F].
        count: n ≥ 0.
        clip: largest length of one vector.
    """
    squares = np.maximum(squares, 0.0)
    total = float(squares.sum())
    if total > count * clip * clip:
        squares = squares * (count * clip * clip / total)
    bound = np.sqrt(count * squares)
    return np.clip(sums, -bound, bound), squares


def head(counts: Ints, sums: Floats, gram: Floats, clip: float) -> tuple[Floats, Floats]:
    """Class sums and a Gram matrix that rows of these counts can have.

    A class's sum is as long as its rows allow. The scatter within the classes, G - Σ_k s_k s_kᵀ / n_k, is replaced by
    the nearest one that is not negative and has the same trace: without the trace, what is cut off below zero would
    make every window's scatter larger, and merging adds that up.

    Args:
        counts: rows per class, int64 [K].
        sums: noised class sums, float64 [K, F].
        gram: noised Gram matrix, symmetric, float64 [F, F].
        clip: largest length of one row.
    """
    lengths = np.linalg.norm(sums, axis=1)
    allowed = counts * clip
    sums = sums * np.where(lengths > allowed, allowed / np.maximum(lengths, np.finfo(float).tiny), 1.0)[:, None]
    seen = counts > 0
    between = (sums[seen] / counts[seen, None]).T @ sums[seen]
    values, vectors = np.linalg.eigh(gram - between)
    most = int(counts.sum()) * clip * clip - float(np.trace(between))
    values = on_simplex(values, min(float(values.sum()), most))
    gram = (vectors * values) @ vectors.T + between
    return sums, (gram + gram.T) / 2
