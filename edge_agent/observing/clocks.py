"""Notes when the device's wall clock cannot be right. Nothing depends on it but what people are told.

Order comes from epoch and sequence, durations from the monotonic clock, and the hub files a window by the skew that it
measures. A clock that is wrong still makes times wrong that people read, so it is said.
"""

from __future__ import annotations

import threading
import time

from edge_agent.clock import Clock
from edge_agent.observing.store import Store

#: 2026-01-01: this agent did not exist before.
MADE = 1_767_225_600
#: A time server may move a clock by less without a note; a device that comes back from a year's sleep moves it more.
JUMP_S = 60.0
#: At a start it may be so much behind what it was before: clocks that stand still while the power is off.
BACK_S = 3600.0
_LAST = "clock/last"


class ClockNotes:
    """Looks at the clock now and then.

    Args:
        store: remembers what the clock said last.
        clock: the device's.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        now, last = clock.wall(), store.fact(_LAST, 0)
        self._offset = now - clock.monotonic()
        self._note = f"at the start it was behind the {_said(last)} of before" if now < last - BACK_S else ""

    def trouble(self) -> str:
        """What is or was wrong with the clock since the start, or ""."""
        with self._lock:
            now = self._clock.wall()
            offset = now - self._clock.monotonic()
            moved, self._offset = offset - self._offset, offset
            if abs(moved) > JUMP_S:
                self._note = f"it jumped by {moved:+.0f} s, to {_said(now)}"
            return f"it says {_said(now)}, before this agent was made" if now < MADE else self._note

    def remember(self) -> None:
        """Remember what the clock says, for the next start; part of a transaction when called in one.

        Raises:
            StoreError: the database refused.
        """
        self._store.set_fact(_LAST, int(self._clock.wall()))


def _said(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"second {seconds:.0f}"
