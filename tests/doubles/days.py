"""A device over days: a clock that the test turns, and a broker's connection that keeps what was published."""

from __future__ import annotations

from collections import deque


class TurnedClock:
    """Implements `edge_agent.clock.Clock`."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self._wall, self._monotonic = wall, 1000.0

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, wall: float) -> None:
        """As a time server does, or an empty battery."""
        self._wall = wall


class Cable:
    """As much of a link as a sender uses."""

    def __init__(self) -> None:
        self.connected = True
        self.published: deque[bytes] = deque()

    def publish(self, topic: str, payload: bytes) -> bool:
        if self.connected:
            self.published.append(payload)
        return self.connected
