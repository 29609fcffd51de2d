"""What leaves when: live windows at once, a backlog at a bounded rate after a random wait, and nothing over the budget.

A device that was away comes back with a backlog, and so does the whole fleet when it was the hub that was away. Each
device waits between nothing and the time that its backlog takes (full jitter), then sends so many rows and bytes a
second. What is closed meanwhile goes first: a row gets its numbers when it is sent, so it need not wait for older ones.
"""

from __future__ import annotations

import logging
import random

from edge_agent.observing.budget import Budget
from edge_agent.observing.outbox import Outbox, OutboxRow
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

#: More rows than this, at a connect, are a backlog; fewer are sent as they are.
BACKLOG_ROWS = 16
#: A backlog leaves in portions of what may leave in so many seconds.
_TURN_S = 0.5


@dataclass(frozen=True)
class ReplayRules:
    """How a backlog leaves.

    Attributes:
        rows_per_s: windows a second.
        bytes_per_s: bytes a second.
        jitter_s: seconds that a backlog waits at most before it begins.
    """

    rows_per_s: float = 10.0
    bytes_per_s: float = 65_536.0
    jitter_s: float = 300.0


class Pace:
    """Gives the sender what may leave; used by its thread alone.

    Args:
        outbox: the rows.
        budget: of bytes a day.
        rules: of a backlog.
    """

    def __init__(self, outbox: Outbox, budget: Budget, rules: ReplayRules) -> None:
        self._outbox, self._budget, self._rules = outbox, budget, rules
        #: Key of the backlog's newest row; 0: there is no backlog.
        self._backlog = 0
        self._turn_at = 0.0

    @property
    def replaying(self) -> bool:
        """Whether a backlog waits or leaves."""
        return self._backlog > 0

    def use(self, rules: ReplayRules) -> None:
        """Go on with other rules."""
        self._rules = rules

    def connected(self, now: float) -> None:
        """The hub can be reached again: what waits may be a backlog."""
        waits = self._outbox.state()
        self._backlog = waits.newest if waits.unsent_rows > BACKLOG_ROWS else 0
        if self._backlog:
            takes_s = self._takes_s(waits.unsent_rows, waits.unsent_bytes)
            pause_s = random.uniform(0.0, min(takes_s, self._rules.jitter_s))
            self._turn_at = now + pause_s
            log.info("%d windows wait; they begin to leave in %.1f s, in about %.0f s", waits.rows, pause_s, takes_s)

    def next(self, now: float, rows: int, most_bytes: int) -> list[OutboxRow]:
        """Rows that were never sent and may leave now; they have their numbers when this returns.

        Args:
            now: monotonic seconds.
            rows: at most so many.
            most_bytes: they are no larger together, unless it is one.

        Raises:
            StoreError: the database refused.
        """
        if self._may_leave(self._backlog):
            return self._take(rows, most_bytes, self._backlog)
        if not self._backlog or now < self._turn_at:
            return []
        if not self._may_leave(0):
            if self._outbox.next_size(0) is None:
                log.info("the backlog has left")
                self._backlog = 0
            return []
        rules = self._rules
        portion = min(rows, max(1, int(rules.rows_per_s * _TURN_S)))
        taken = self._take(portion, min(most_bytes, int(rules.bytes_per_s * _TURN_S)), 0)
        self._turn_at = now + self._takes_s(len(taken), sum(len(row.body) for row in taken))
        return taken

    def wait_s(self, now: float) -> float:
        """Seconds after which it is worth asking again, if nothing new comes."""
        return max(self._turn_at - now, 0.0) if self._backlog else 1.0

    def holds(self, size: int) -> bool:
        """Whether a message has to wait for the budget."""
        return self._budget.wait_s(size) > 0

    def sent(self, size: int) -> None:
        """A message has left."""
        self._budget.spend(size)

    def save(self) -> None:
        """Remember what has left.

        Raises:
            StoreError: the database refused.
        """
        self._budget.save()

    def _may_leave(self, above: int) -> bool:
        size = self._outbox.next_size(above)
        return size is not None and not self.holds(size)

    def _take(self, rows: int, most_bytes: int, above: int) -> list[OutboxRow]:
        # Under a budget one at a time: what has its numbers can be merged no more, and may have to wait for hours.
        return self._outbox.send_next(1 if self._budget.limited else rows, most_bytes, above)

    def _takes_s(self, rows: int, size: int) -> float:
        return max(rows / self._rules.rows_per_s, size / self._rules.bytes_per_s)
