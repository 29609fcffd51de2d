"""The byte budget: what really left the device is counted against what may leave it in 24 hours.

A bucket holds a quarter of the budget and is filled with the other three quarters in 24 hours, so that no stretch of 24
hours sees more than the budget: a quarter may leave at once, such as when the hub is back, and the rest evenly.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from edge_agent.clock import Clock
from edge_agent.observing.store import Store

DAY_S = 86_400.0
#: The part of the budget that may leave at once.
AT_ONCE = 0.25
#: Without a budget the day's bytes are only shown; so often they are written, seconds.
_SAVE_S = 30.0


class Budget:
    """What may leave now; from any thread.

    Args:
        store: remembers over restarts what was spent.
        bytes_per_day: the budget in force, or None for any number.
        clock: the device's.
    """

    def __init__(self, store: Store, bytes_per_day: Callable[[], int | None], clock: Clock) -> None:
        self._store, self._bytes_per_day, self._clock = store, bytes_per_day, clock
        self._lock = threading.Lock()
        self._at = clock.monotonic()
        self._saved_at = -math.inf
        now = clock.wall()
        self._day = store.fact("budget/day", int(now // DAY_S))
        self._today = store.fact("budget/today", 0)
        # What was filled while the agent was off, if the clock can be believed.
        off_s = now - store.fact("budget/at", int(now))
        self._spent = float(store.fact("budget/spent", 0))
        self._forget(off_s if 0 <= off_s <= DAY_S else 0.0)

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self._bytes_per_day() is not None

    @property
    def today(self) -> int:
        """Bytes that left since midnight, UTC."""
        return self._today if self._day == int(self._clock.wall() // DAY_S) else 0

    def room(self, seconds: float) -> float:
        """Bytes that may leave now and in so many seconds."""
        daily = self._bytes_per_day()
        return math.inf if daily is None else max(self._left(daily), 0.0) + seconds * _rate(daily)

    def wait_s(self, size: int) -> float:
        """Seconds until so many bytes may leave; more than a full bucket holds leave when it is full."""
        daily = self._bytes_per_day()
        if daily is None:
            return 0.0
        return max(0.0, (min(size, AT_ONCE * daily) - self._left(daily)) / _rate(daily))

    def spend(self, size: int) -> None:
        """So many bytes have left."""
        with self._lock:
            self._fill()
            self._spent += size
            self._today, self._day = self.today + size, int(self._clock.wall() // DAY_S)

    def save(self) -> None:
        """Remember what was spent: at once where there is a budget, now and then where not.

        Raises:
            StoreError: the database refused.
        """
        now = self._clock.monotonic()
        if self._bytes_per_day() is None and now < self._saved_at + _SAVE_S:
            return
        with self._lock:
            self._fill()
            facts = {"spent": int(self._spent), "at": int(self._clock.wall()), "day": self._day, "today": self._today}
        with self._store.transaction():
            for name, value in facts.items():
                self._store.set_fact(f"budget/{name}", value)
        self._saved_at = now

    def _left(self, daily: int) -> float:
        with self._lock:
            self._fill()
            return AT_ONCE * daily - self._spent

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._forget(now - self._at)
        self._at = now

    def _forget(self, seconds: float) -> None:
        daily = self._bytes_per_day()
        self._spent = 0.0 if daily is None else max(self._spent - seconds * _rate(daily), 0.0)


def _rate(daily: int) -> float:
    """Bytes that are filled in a second."""
    return (1 - AT_ONCE) * daily / DAY_S
