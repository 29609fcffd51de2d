"""How large a share of the rows may be kept: a day's samples and bytes are spread over the day, whatever the traffic.

Two buckets, of samples and of bytes, hold a quarter of the day's budget each and are filled with the other three
quarters in 24 hours; what is in them is spread over the next hour's traffic. What is larger than a bucket waits for a
full one. That spreads; the bound is a ledger of the last 24 hours, so that none of them see more than the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgeloop.sampling.policy import SamplesPolicy

DAY_S, HOUR_S = 86_400.0, 3600.0
#: Hours that touch any 24 in a row.
HOURS = 25
#: The part of a day's budget that may leave at once.
AT_ONCE = 0.25
#: The traffic is that of about so many seconds.
TRAFFIC_S = 600.0
#: A sample is taken for as large as the last ones were on the mean.
SIZES = 20


class _Budget:
    """One budget, of samples or of bytes."""

    def __init__(self, name: str, state: Mapping[str, float]) -> None:
        self._name = name
        self._spent = max(state.get(f"{name}/spent", 0.0), 0.0)
        hours = ((key.rpartition("/"), value) for key, value in state.items() if key.startswith(f"{name}/hour/"))
        self._hours = {int(hour): value for (_, _, hour), value in hours if hour.lstrip("-").isdecimal()}

    def pass_(self, per_day: int, elapsed: float, now: float) -> None:
        """Time has passed."""
        self._spent = max(self._spent - elapsed * _rate(per_day), 0.0)
        hour = int(now // HOUR_S)
        kept: dict[int, float] = {}
        for noted, value in self._hours.items():
            at = min(noted, hour)  # where the clock went back, what was spent then is spent now
            if at > hour - HOURS:
                kept[at] = kept.get(at, 0.0) + value
        self._hours = kept

    def fits(self, per_day: int, size: float) -> bool:
        bucket = AT_ONCE * per_day
        return self._spent <= max(bucket - size, 0.0) and sum(self._hours.values()) + size <= per_day

    def spend(self, size: float, now: float) -> None:
        self._spent += size
        hour = int(now // HOUR_S)
        self._hours[hour] = self._hours.get(hour, 0.0) + size

    def left(self, per_day: int) -> float:
        """What is in the bucket."""
        return max(AT_ONCE * per_day - self._spent, 0.0)

    def state(self) -> dict[str, float]:
        hours = {f"{self._name}/hour/{hour}": value for hour, value in self._hours.items()}
        return {f"{self._name}/spent": self._spent, **hours}


class Steering:
    """Times are unix seconds, given by the caller; a clock that jumps back frees nothing.

    Args:
        state: what `state` gave before a restart.
    """

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        known = {name: value for name, value in (state or {}).items() if math.isfinite(value)}
        self._samples, self._bytes = _Budget("samples", known), _Budget("bytes", known)
        self._at: float | None = known.get("at")
        self._size = max(known.get("size", 0.0), 0.0)
        self._rows = self._span = 0.0

    def seen(self, policy: SamplesPolicy, rows: int, now: float) -> None:
        """So many rows were answered."""
        # A clock that was set moves by years: no more than a day is filled by it.
        elapsed = 0.0 if self._at is None else min(max(now - self._at, 0.0), DAY_S)
        self._at = now
        self._samples.pass_(policy.per_day, elapsed, now)
        self._bytes.pass_(policy.bytes_per_day, elapsed, now)
        self._rows = self._rows * math.exp(-elapsed / TRAFFIC_S) + rows
        self._span += elapsed

    def share(self, policy: SamplesPolicy) -> float:
        """Share of the rows that may be kept now, 0…1."""
        if not self.fits(policy, math.ceil(self._size)):
            return 0.0
        wanted = _rate(policy.per_day) + self._samples.left(policy.per_day) / HOUR_S
        if self._size:
            bytes_per_s = _rate(policy.bytes_per_day) + self._bytes.left(policy.bytes_per_day) / HOUR_S
            wanted = min(wanted, bytes_per_s / self._size)
        return min(1.0, wanted / self._traffic()) if self._rows else 1.0

    def fits(self, policy: SamplesPolicy, size: int) -> bool:
        """Whether one more sample of so many bytes is within the budgets."""
        return self._samples.fits(policy.per_day, 1) and self._bytes.fits(policy.bytes_per_day, size)

    def kept(self, size: int) -> None:
        """One sample of so many bytes was kept."""
        now = self._at or 0.0
        self._samples.spend(1, now)
        self._bytes.spend(size, now)
        self._size += (size - self._size) / SIZES if self._size else size

    def state(self) -> dict[str, float]:
        """What outlives a restart, plain numbers."""
        at = {} if self._at is None else {"at": self._at}
        return {**at, "size": self._size, **self._samples.state(), **self._bytes.state()}

    def _traffic(self) -> float:
        """Rows a second, at least as many as there would be if all of them had come in one second."""
        return self._rows / (TRAFFIC_S * (1.0 - math.exp(-max(self._span, 1.0) / TRAFFIC_S)))


def _rate(per_day: int) -> float:
    """What fills a bucket in a second."""
    return (1.0 - AT_ONCE) * per_day / DAY_S
