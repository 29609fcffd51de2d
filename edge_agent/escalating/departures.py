"""Departures: how rows that were drawn leave the device, and what becomes of those that do not.

What a client waits for leaves in the thread of its request, unless something has to be written first; all else waits
in a queue for the escalator's thread. Nothing leaves before the store has it as spent.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from edge_agent.clock import Clock
from edge_agent.escalating.allowance import Allowance
from edge_agent.escalating.asked import Asked, AskedRow
from edge_agent.escalating.carriers import Carriers, Outcome
from edge_agent.observing.store import StoreError
from edgeloop.protocol import TeacherAnswer

log = logging.getLogger(__name__)

#: Messages, and their bytes, that wait to be sent; what is more is not escalated.
MOST_QUEUED, MOST_QUEUED_BYTES = 256, 32 << 20


class Departures:
    """Sends rows.

    Args:
        lock: guards the queue and the allowance; held by nobody who calls `leave` or `send`.
        allowance: what may be escalated yet.
        carriers: gives the ways to the hub; None while nothing may leave.
        clock: the device's.
        sent: is told of a row that has left, the bytes of its message, and the answers that came back at once.
        unsent: is told of a row that could not leave, and why.
    """

    def __init__(
        self,
        lock: threading.Condition,
        allowance: Allowance,
        carriers: Callable[[], Carriers | None],
        clock: Clock,
        *,
        sent: Callable[[Asked, int, Sequence[TeacherAnswer]], None],
        unsent: Callable[[Asked, AskedRow, str], None],
    ) -> None:
        self._lock, self._allowance, self._carriers, self._clock = lock, allowance, carriers, clock
        self._sent, self._unsent = sent, unsent
        self._queue: deque[tuple[Asked, AskedRow]] = deque()
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether too many rows wait; without the lock, since a moment later is as good."""
        return len(self._queue) >= MOST_QUEUED or self._bytes >= MOST_QUEUED_BYTES

    def send(self, asked: Asked) -> None:
        """Send all rows of a request, now or soon; never blocks, never raises."""
        with self._lock:
            writes = self._allowance.writes(self._clock.wall(), self._clock.monotonic())
            at_once = asked.waits and not self._queue and not writes
            if not at_once:
                for row in asked.of_index.values():
                    self._queue.append((asked, row))
                    self._bytes += len(row.payload)
        if at_once:
            for row in asked.of_index.values():
                self._try(self._hand_over, asked, row)
        with self._lock:
            self._lock.notify()

    def take(self) -> tuple[Asked, AskedRow] | None:
        """The row that leaves next, for `leave`; the caller holds the lock."""
        if not self._queue:
            return None
        asked, row = self._queue.popleft()
        self._bytes -= len(row.payload)
        return asked, row

    def leave(self, asked: Asked, row: AskedRow) -> None:
        """Send a row, when the store has it as spent; never raises."""
        self._try(self._write_and_hand_over, asked, row)

    def _try(self, leave: Callable[[Asked, AskedRow], None], asked: Asked, row: AskedRow) -> None:
        try:
            leave(asked, row)
        except Exception:
            log.exception("an escalation could not leave for an unforeseen reason")
            self._unsent(asked, row, "an unforeseen error, see the log")

    def _write_and_hand_over(self, asked: Asked, row: AskedRow) -> None:
        with self._lock:
            ahead = self._allowance.ahead(self._clock.wall())
            steering = self._allowance.to_save(self._clock.monotonic())
        if steering is not None:
            self._allowance.save(steering)
        if ahead is not None:
            try:
                self._allowance.remember(ahead)
            except StoreError as error:
                return self._unsent(asked, row, str(error))
        self._hand_over(asked, row)

    def _hand_over(self, asked: Asked, row: AskedRow) -> None:
        """Send a row that is spent in the store."""
        carriers, payload = self._carriers(), row.payload
        if carriers is None:
            return self._unsent(asked, row, "escalation was turned off")

        def told(outcome: Outcome) -> None:
            row.payload = b""
            if outcome.left:
                self._sent(asked, len(payload), outcome.answers)
            else:
                self._unsent(asked, row, outcome.reason)

        wait_s = max(asked.until - self._clock.monotonic(), 0.001) if asked.waits else None
        carriers.send(payload, wait_s, told)
