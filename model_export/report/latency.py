"""How long one row takes in each session, measured now, in turn: what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Rounds at most, calls of each session in a round, and seconds for all rounds together.
ROUNDS, CALLS, BUDGET_S = 60, 10, 3.0
LEAST_ROUNDS = 5
PERCENTILES = (5, 25, 50, 75, 95, 99)
HISTOGRAM_BINS = 48


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call with one row.

    Attributes:
        calls: that were timed.
        percentiles: by their number.
        edges: of the histogram's bins, ascending, one more than counts; equal on a logarithmic scale, the same for all.
        counts: calls in each bin.
        threads: of one run.
    """

    calls: int
    percentiles: dict[str, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threads: int

    @property
    def median(self) -> float:
        """The median, ms."""
        return self.percentiles["50"]


def measured(calls: Sequence[Callable[[], object]], threads: Sequence[int]) -> tuple[Latency, ...]:
    """Time calls in turn.

    Args:
        calls: one for each session.
        threads: of each.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        for _ in range(3):  # the first ones allocate
            call()
    end, order = time.perf_counter() + BUDGET_S, list(range(len(calls)))
    for done in range(ROUNDS):
        for i in order if done % 2 else reversed(order):
            for _ in range(CALLS):
                start = time.perf_counter()
                calls[i]()
                times[i].append((time.perf_counter() - start) * 1e3)
            if done >= LEAST_ROUNDS and time.perf_counter() > end:
                break
        else:
            continue
        break
    if not times:
        return ()
    every = np.concatenate([np.asarray(mine) for mine in times])
    # Calls beyond these are counted in the last bins: a few that something else has held up would squeeze all others.
    low, high = np.percentile(every, 0.5) / 1.1, np.percentile(every, 97.5) * 1.2
    edges = np.geomspace(max(low, 1e-4), max(high, 2e-4), HISTOGRAM_BINS + 1)
    return tuple(_latency(np.asarray(mine), edges, n) for mine, n in zip(times, threads, strict=True))


def _latency(
    times: np.ndarray[tuple[int], np.dtype[np.float64]],
    edges: np.ndarray[tuple[int], np.dtype[np.float64]],
    threads: int,
) -> Latency:
    counts, _ = np.histogram(np.clip(times, edges[0], edges[-1]), edges)
    found = {str(p): float(np.percentile(times, p)) for p in PERCENTILES}
    return Latency(len(times), found, tuple(map(float, edges)), tuple(map(int, counts)), threads)
