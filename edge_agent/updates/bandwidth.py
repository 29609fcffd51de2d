"""A bound on bytes per second: a token bucket. Pure: it is told the time and says how long to wait."""

from __future__ import annotations

#: The bucket holds what comes in so many seconds: a short pause of the hub is caught up with, a long one is not.
BURST_S = 1.0


class TokenBucket:
    """Bytes that may be taken now; each second brings ``rate`` more, up to `BURST_S` of them."""

    def __init__(self, rate: float, now: float) -> None:
        """Start with an empty bucket.

        Args:
            rate: bytes per second; 0: no bound.
            now: seconds on any clock that never goes back.
        """
        self._rate, self._filled, self._at = rate, 0.0, now

    def take(self, count: int, now: float) -> float:
        """Take bytes that have come already, and return the seconds to wait before taking more."""
        if self._rate <= 0:
            return 0.0
        self._filled = min(self._filled + (now - self._at) * self._rate, self._rate * BURST_S) - count
        self._at = now
        return max(0.0, -self._filled / self._rate)
