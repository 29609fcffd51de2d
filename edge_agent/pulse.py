"""Signs of life of a thread: it says how soon it will show itself again, and a watchdog looks whether it did."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A small machine under load comes late; only a thread that is later than this is taken for one that hangs.
PATIENCE_S = 30.0


class Pulse:
    """Beats are plain assignments: a thread may beat as often as it likes."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is expected before the first beat.

        Args:
            name: of the thread, for people.
            clock: seconds, never going back.
        """
        self.name, self._clock = name, clock
        self._due = float("inf")

    def beat(self, within_s: float) -> None:
        """Live, and promise to beat again within so many seconds."""
        self._due = self._clock() + within_s + PATIENCE_S

    def hangs(self) -> bool:
        """Whether the promised beat is long overdue."""
        return self._clock() > self._due
