"""Thinning: on a busy device every prediction counts, and a random share of them is observed in full.

Counts, classes, confidences and latencies are of all rows. What inputs and features are like is asked of as many rows a
second as the owner allows, and of wide inputs, such as images, of so many numbers a second; beyond that the draw is
random, so that no rhythm in what a client sends can hide from it.
"""

from __future__ import annotations

import os

#: The share is drawn in so many steps, one byte a request; so many draws are made at once.
STEPS, DRAWS = 256, 1024
#: A rate is that of at least so many seconds.
LEAST_S = 0.1
#: Numbers of wide inputs that are summarised in a second: 27 images of 224 × 224 × 3, which takes 0.7 % of a core.
WIDE_VALUES_PER_S = 4e6
#: A request with more numbers than this is wide.
WIDE_VALUES = 1 << 14


class Thinning:
    """Draws a share of the requests so that a rate is kept; `draw` is on the hot path.

    Args:
        most_per_s: what is to be observed in a second: rows, or numbers.
    """

    def __init__(self, most_per_s: float) -> None:
        self._most = most_per_s
        self._seen, self._rate, self._looked = 0, 0.0, 0.0
        self._draws, self._next = b"", 0
        #: Of `STEPS`; all of them: everything is.
        self.share = STEPS

    def draw(self) -> bool:
        """Whether the next request is in the share."""
        if self.share >= STEPS:
            return True
        self._next = number = (self._next + 1) % DRAWS
        return self._draws[number] < self.share

    def seen(self, count: int) -> None:
        """Rows, or numbers, that came, drawn or not."""
        self._seen += count

    def look(self, now: float) -> None:
        """Adapt the share to the rate; called a few times a second, with the monotonic clock."""
        elapsed = now - self._looked
        if elapsed < LEAST_S:
            return
        rate = self._seen / elapsed
        # Up at once, down slowly: a pause between two bursts does not make the next one expensive.
        self._rate = max(rate, (self._rate + rate) / 2)
        self._seen, self._looked = 0, now
        if self._rate <= self._most:
            self.share = STEPS
        else:
            self._draws = os.urandom(DRAWS)
            self.share = max(1, int(STEPS * self._most / self._rate))
