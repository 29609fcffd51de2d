"""The update machine, as messaging and status see it, and whom it tells."""

from __future__ import annotations

from typing import Protocol

from edgeloop.protocol import ChannelDocument
from edgeloop.records import dataclass


@dataclass(frozen=True)
class UpdateStatus:
    """Where the update machine stands; ``state`` is one of ``edge_agent.updates.rules``.

    Attributes:
        state: idle, fetching, verifying, staged, testing, probation, committed or rolled_back.
        release: digest of the release that the state is about, or None.
        reason: why, for rolled_back; else what is going on. A sentence for a person.
        rollout: id of the rollout that offered it, or None.
        attempt: how many times this release was tried.
        since: unix seconds.
    """

    state: str
    release: str | None
    reason: str
    rollout: str | None
    attempt: int
    since: float


class Updates(Protocol):
    """The update machine, as messaging and status see it."""

    def follow(self, document: ChannelDocument) -> None:
        """Take a channel document; returns at once."""

    def status(self) -> UpdateStatus:
        """The present state."""

    def committed(self) -> str | None:
        """Digest of the last committed release."""

    def previous(self) -> str | None:
        """Digest of the release that was committed before it and is kept for going back."""


class Reporter(Protocol):
    """Whoever tells the hub about the state of the update machine."""

    def report(self) -> None:
        """Publish the reported document soon; never blocks, never raises."""
