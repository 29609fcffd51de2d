"""The two clocks of a device: one that measures time, and one that says what time it is, rightly or wrongly."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What parts that are tested over days ask for the time."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def wall(self) -> float:
        """Unix seconds, as the device believes."""


class SystemClock:
    """This machine's."""

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()

    def wall(self) -> float:
        """See :class:`Clock`."""
        return time.time()
