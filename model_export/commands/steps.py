"""How far a build is, and how long it will still take, from the steps that it tells."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

#: What the steps of a build take against one another, about: those of a MobileNetV2 with int8 on two cores, in seconds.
#: A step is known by how its text begins; any other text belongs to the step that runs.
BUILD: Mapping[str, float] = {
    "reading data": 1,
    "converting": 12,
    "bringing the graph": 6,
    "making and measuring": 25,
    "writing and testing": 6,
}
#: A share of the work below which nothing can be said of the rest.
LEAST_KNOWN = 0.04
_OF = re.compile(r"\b(\d+) of (\d+)\b")


class Steps:
    """The share of the work that is done.

    Attributes:
        text: of what runs.
    """

    def __init__(self, weights: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            weights: beginning of a step's text → its part of the work, in the order of the steps.
            clock: seconds.
        """
        self.text = "starting"
        self._weights, self._clock = dict(weights), clock
        self._started = clock()
        self._at, self._inside = -1, 0.0

    def begin(self, text: str) -> None:
        """A step begins, or moves on: “… 3 of 40 …” in a text says how far it is."""
        self.text = text
        for i, prefix in enumerate(self._weights):
            if text.startswith(prefix) and i > self._at:
                self._at, self._inside = i, 0.0
                return
        if (found := _OF.search(text)) and int(found[2]):
            self._inside = min(1.0, max(0, int(found[1]) - 1) / int(found[2]))

    @property
    def done(self) -> float:
        """The share of the work that is done, 0 to 1."""
        weights, at = list(self._weights.values()), max(self._at, 0)
        if self._at < 0 or not weights:
            return 0.0
        return (sum(weights[:at]) + weights[at] * self._inside) / sum(weights)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, if the rest goes on like what is done; None where too little is."""
        if self.done < LEAST_KNOWN:
            return None
        return (self._clock() - self._started) * (1 - self.done) / self.done
