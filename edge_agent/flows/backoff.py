"""Waits that double, with full jitter: many that failed in one moment do not come back in one."""

from __future__ import annotations

import random


class Backoff:
    """Each wait is drawn between nothing and a bound that doubles.

    https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/

    Args:
        first_s: the first bound, seconds.
        longest_s: the last.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = min(first_s, longest_s), longest_s
        self._bound_s = self._first_s

    def next(self) -> float:
        """The next wait, seconds."""
        wait = random.uniform(0.0, self._bound_s)
        self._bound_s = min(self._bound_s * 2, self._longest_s)
        return wait

    def reset(self) -> None:
        """It worked."""
        self._bound_s = self._first_s
