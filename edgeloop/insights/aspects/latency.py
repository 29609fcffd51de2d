"""How long predictions took: logarithmic bins with a relative error of 2 %.

The mapping is DDSketch's (Masson, Rim and Lee, VLDB 2019): bin i holds the values in (γ^(i-1), γ^i] with
γ = (1 + a) / (1 - a), so that the middle 2 γ^i / (γ + 1) is within a relative error a of every value in the bin. The
range is fixed, so there is nothing to collapse and two windows always have the same bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, predictions_of
from edgeloop.insights.sizes import Array, ArraySpec, Ints, Sizes

ACCURACY = 0.02
#: From 1 µs to 100 s; what is shorter is in the first bin, what is longer in the last.
LOWEST_NS, HIGHEST_NS = 1e3, 1e11
LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
BINS = math.ceil(math.log(HIGHEST_NS / LOWEST_NS) / LOG_GAMMA) + 1


#: All of the time; of it the waiting for a place to run, and the run of the model.
NAMES = ("latency", "latency_queue", "latency_run")


class Latency(Aspect):
    """`NAMES`, each int64 [462]: nanoseconds per prediction; a row's times are those of its request."""

    name = "latency"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return dict.fromkeys(NAMES, ArraySpec((BINS,), "int64"))

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        for name, measured in zip(NAMES, (rows.latency_ns, rows.queue_ns, rows.run_ns), strict=True):
            if len(measured):
                into[name][:] += np.bincount(latency_bins(measured), minlength=BINS)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        for name in NAMES:
            if name in arrays:
                yield arrays[name].sum(axis=-1) > predictions_of(arrays), f"{name} holds more than the predictions"


def latency_bins(latency_ns: Ints) -> Ints:
    """Bin of each latency: int64 [N]."""
    relative = np.maximum(latency_ns, LOWEST_NS) / LOWEST_NS
    bins = np.ceil(np.log(relative) / LOG_GAMMA).astype(np.int64)
    return np.minimum(bins, BINS - 1)


def latency_quantile_ns(latency: Array, quantile: float) -> float | None:
    """A quantile of the latencies of a window, nanoseconds, within 2 %; None when nothing was measured.

    Args:
        latency: one of a window's arrays `NAMES`.
        quantile: 0…1.
    """
    total = int(latency.sum())
    if total == 0:
        return None
    rank = min(total, max(1, math.ceil(quantile * total)))
    found = int(np.searchsorted(np.cumsum(latency), rank))
    return LOWEST_NS * 2 * math.exp(found * LOG_GAMMA) / (math.exp(LOG_GAMMA) + 1)
