"""The hub's ports: what its parts ask of one another where that is less than a whole class, on one page."""

from __future__ import annotations

from typing import Protocol


class Publisher(Protocol):
    """Whoever can send a message to devices."""

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Send soon, without blocking; False when it cannot be sent now."""


class RolloutStarter(Protocol):
    """Whoever moves a channel from its current release to a candidate."""

    def start(self, channel: str, digest: str) -> str:
        """Start a rollout and return its id; raises Conflict when the channel has one under way."""
