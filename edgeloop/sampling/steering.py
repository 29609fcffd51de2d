"""How large a share of the rows may be kept: a day's samples and bytes are spread over the day, whatever the traffic.

Two buckets, of samples and of bytes, hold a quarter of the day's budget each and are filled with the other three
quarters in 24 hours, so that no 24 hours see more than the budget. What is in them is spread over the next hour's
traffic. What is larger than a full bucket waits for a full one, and then empties it for a day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgeloop.sampling.policy import SamplesPolicy

DAY_S, HOUR_S = 86_400.0, 3600.0
#: The part of a day's budget that may leave at once.
AT_ONCE = 0.25
#: The traffic is that of about so many seconds.
TRAFFIC_S = 600.0
#: A sample is taken for as large as the last ones were on the mean.
SIZES = 20


class Steering:
    """Times are unix seconds, given by the caller; a clock that jumps back fills nothing.

    Args:
        state: what `state` gave before a restart.
    """

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        known = {name: value for name, value in (state or {}).items() if math.isfinite(value)}
        self._spent = max(known.get("spent", 0.0), 0.0)
        self._spent_bytes = max(known.get("spent_bytes", 0.0), 0.0)
        self._at = known.get("at", -1.0)
        self._size = max(known.get("size", 0.0), 0.0)
        self._rows = self._span = 0.0

    def seen(self, policy: SamplesPolicy, rows: int, now: float) -> None:
        """So many rows were answered."""
        elapsed = self._fill(policy, now)
        self._rows = self._rows * math.exp(-elapsed / TRAFFIC_S) + rows
        self._span += elapsed

    def share(self, policy: SamplesPolicy) -> float:
        """Share of the rows that may be kept now, 0…1."""
        if not self.fits(policy, math.ceil(self._size)):
            return 0.0
        rate = _rate(policy.per_day) + self._left(policy.per_day, self._spent) / HOUR_S
        if self._size:
            left = self._left(policy.bytes_per_day, self._spent_bytes)
            rate = min(rate, (_rate(policy.bytes_per_day) + left / HOUR_S) / self._size)
        return min(1.0, rate / self._traffic()) if self._rows else 1.0

    def fits(self, policy: SamplesPolicy, size: int) -> bool:
        """Whether one more sample of so many bytes is within the budgets."""
        return _fits(policy.per_day, self._spent, 1) and _fits(policy.bytes_per_day, self._spent_bytes, size)

    def kept(self, policy: SamplesPolicy, size: int) -> None:
        """One sample of so many bytes was kept."""
        self._spent += _charge(policy.per_day, 1)
        self._spent_bytes += _charge(policy.bytes_per_day, size)
        self._size += (size - self._size) / SIZES if self._size else size

    def state(self) -> dict[str, float]:
        """What outlives a restart, plain numbers."""
        return {"spent": self._spent, "spent_bytes": self._spent_bytes, "at": self._at, "size": self._size}

    def _traffic(self) -> float:
        """Rows a second, at least as many as there would be if all of them had come in one second."""
        return self._rows / (TRAFFIC_S * (1.0 - math.exp(-max(self._span, 1.0) / TRAFFIC_S)))

    @staticmethod
    def _left(per_day: int, spent: float) -> float:
        return max(AT_ONCE * per_day - spent, 0.0)

    def _fill(self, policy: SamplesPolicy, now: float) -> float:
        # A clock that was set moves by years: no more than a day is filled by it.
        elapsed = min(max(now - self._at, 0.0), DAY_S) if self._at >= 0 else 0.0
        self._at = now
        self._spent = max(self._spent - elapsed * _rate(policy.per_day), 0.0)
        self._spent_bytes = max(self._spent_bytes - elapsed * _rate(policy.bytes_per_day), 0.0)
        return elapsed


def _rate(per_day: int) -> float:
    return (1.0 - AT_ONCE) * per_day / DAY_S


def _fits(per_day: int, spent: float, size: float) -> bool:
    bucket = AT_ONCE * per_day
    return size <= per_day and spent <= max(bucket - size, 0.0)


def _charge(per_day: int, size: float) -> float:
    """What is taken from the bucket: a day's filling at least, where one does not hold it."""
    return size if size <= AT_ONCE * per_day else max(size, (1.0 - AT_ONCE) * per_day)
