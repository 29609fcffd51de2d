"""A person's wish to leave a release, handed from any thread to the thread of updates."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from edge_agent.updates.store import Position
from edgeloop.records import dataclass


@dataclass(frozen=True)
class GoBack:
    """The wish: which release served when it was asked, why, and where the outcome goes."""

    leave: str | None
    reason: str
    outcome: Future[Position]


class Asked:
    """One wish at a time; whoever asks while one waits gets its outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The wish that waits, or None.
        self.waiting: GoBack | None = None

    def ask(self, leave: str | None, reason: str) -> Future[Position]:
        """Ask to leave a release; returns at once.

        Args:
            leave: digest of what serves now, or None.
            reason: a sentence for people.
        """
        with self._lock:
            if self.waiting is None:
                self.waiting = GoBack(leave, f"left by hand: {reason}", Future())
            return self.waiting.outcome

    def take(self) -> GoBack | None:
        """The wish, which waits no more."""
        with self._lock:
            asked, self.waiting = self.waiting, None
            return asked
