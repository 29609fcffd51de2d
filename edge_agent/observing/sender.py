"""The sender: outbox rows go to the hub, a few in flight, and again until the hub says that it has them.

Only the hub's acknowledgement counts, never the broker's. It is cumulative: everything up to a number is committed.
Sending again is always safe, since the hub drops what it has counted. What leaves when: `edge_agent.observing.pace`.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from edge_agent.clock import Clock, SystemClock
from edge_agent.observing.outbox import Outbox, OutboxRow, OutboxState
from edge_agent.observing.pace import Pace
from edge_agent.observing.store import StoreError
from edgeloop.protocol import Ack, Insights, ProtocolError, decode
from edgeloop.protocol.link import Link
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

IN_FLIGHT_ROWS = 16
# Rows that were sent cannot be merged any more, so they may take a part of the outbox's limit only.
IN_FLIGHT_SHARE = 4
ACK_TIMEOUT_S = 10.0
#: A hub that acknowledges nothing for so long is not there, though its broker is; a busy one takes a few seconds.
SILENT_S = 3 * ACK_TIMEOUT_S
# An acknowledgement without progress says that the hub waits for an earlier row.
REPEAT_S = 0.2
# While no acknowledgement comes at all, such as from a broker without a hub, rows are sent again ever less often.
MOST_PATIENCE = 16
_IDLE_S = 1.0
# A connection that comes wakes the sender; without one there is nothing to look for.
_AWAY_S = 30.0


@dataclass(frozen=True)
class SenderState:
    """Running totals since the start: rows sent (again included), rows sent again, acknowledged, refused by the hub."""

    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    ignored: int = 0
    """Acknowledgements of another epoch or of numbers that were never sent."""


class Sender:
    """Sends the outbox over a link.

    Args:
        outbox: the rows.
        epoch: of the store.
        link: the connection to the broker.
        device: the device's name.
        topic: of the device's insights.
        channel: gives the channel that the device follows now.
        pace: says what may leave when.
        ack_timeout_s: seconds without an acknowledgement after which rows are sent again; jittered by a quarter.
        clock: the device's.
    """

    def __init__(
        self,
        outbox: Outbox,
        epoch: int,
        link: Link,
        *,
        device: str,
        topic: str,
        channel: Callable[[], str],
        pace: Pace,
        ack_timeout_s: float = ACK_TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        self._outbox = outbox
        self._epoch = epoch
        self._link = link
        self._device = device
        self._topic = topic
        self._channel = channel
        self._pace = pace
        self._ack_timeout_s = ack_timeout_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._in_flight: deque[OutboxRow] = deque()
        self._sent_up_to = 0
        self._resend_at = 0.0
        self._patience = 1
        self._restart = False
        self._owed_since: float | None = None
        self._totals = {"sent": 0, "resent": 0, "acknowledged": 0, "refused": 0, "ignored": 0}
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="insights sender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; what was not acknowledged stays in the outbox."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def wake(self) -> None:
        """There is something new in the outbox; never blocks."""
        self._wake.set()

    def connected(self) -> None:
        """The link has (re)connected: everything without an acknowledgement is sent again. Never blocks."""
        self._restart = True
        self._wake.set()

    def acknowledged(self, ack: Ack) -> None:
        """Take the hub's acknowledgement: rows up to it leave the outbox.

        Raises:
            StoreError: the database refused; the rows stay and are sent again.
        """
        with self._lock:
            if ack.epoch != self._epoch or ack.last > self._outbox.highest_sent():
                self._totals["ignored"] += 1
                return
        forgotten = self._outbox.acknowledge(ack.last)
        with self._lock:
            self._patience = 1
            self._owed_since = None
            while self._in_flight and self._in_flight[0].last <= ack.last:
                self._in_flight.popleft()
            if self._in_flight:
                self._owed_since = self._clock.monotonic()
            if forgotten:
                self._totals["acknowledged"] += forgotten
                self._resend_at = self._deadline()
            elif self._in_flight:
                self._resend_at = min(self._resend_at, self._clock.monotonic() + REPEAT_S * random.uniform(0.75, 1.25))
            self._totals["refused"] += len(ack.refused)
        if ack.refused:
            log.warning("the hub could not read the windows %s; it has put them aside", list(ack.refused)[:20])
        self._wake.set()

    def state(self) -> SenderState:
        """Running totals since the start."""
        with self._lock:
            return SenderState(**self._totals)

    def silent_s(self) -> float:
        """How long the hub has acknowledged nothing of what the broker took, seconds; 0 below `SILENT_S`."""
        since = self._owed_since
        silent = 0.0 if since is None or not self._link.connected else self._clock.monotonic() - since
        return silent if silent >= SILENT_S else 0.0

    def outbox_state(self) -> OutboxState:
        """How much waits.

        Raises:
            StoreError: the database refused.
        """
        return self._outbox.state()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._patience_s())
            self._wake.clear()
            try:
                self.send_due()
            except StoreError as error:
                log.error("%s", error)
                time.sleep(_IDLE_S)
            except Exception:
                log.exception("the sender met an unforeseen error and goes on")
                time.sleep(_IDLE_S)

    def _patience_s(self) -> float:
        if not self._link.connected:
            return _AWAY_S
        now = self._clock.monotonic()
        with self._lock:
            waits = [self._resend_at - now] if self._in_flight else []
        waits.append(self._pace.wait_s(now))
        return min(max(min(waits), 0.01), _IDLE_S)

    def send_due(self) -> None:
        """Send what may leave now: first again what the hub has not acknowledged in time, then what comes next.

        Raises:
            StoreError: the database refused.
        """
        if not self._link.connected:
            return
        now = self._clock.monotonic()
        with self._lock:
            if self._restart or (self._in_flight and now >= self._resend_at):
                if self._restart:
                    self._pace.connected(now)
                    self._owed_since = None
                self._patience = 1 if self._restart else min(2 * self._patience, MOST_PATIENCE)
                self._restart = False
                self._totals["resent"] += len(self._in_flight)
                self._in_flight.clear()
                self._sent_up_to = 0
            room = IN_FLIGHT_ROWS - len(self._in_flight)
            used = sum(len(row.body) for row in self._in_flight)
            most_bytes = self._outbox.limit_bytes // IN_FLIGHT_SHARE - used
            after = self._sent_up_to
        if room <= 0 or (used and most_bytes <= 0):
            return
        rows = self._outbox.sent_rows(after, room, max(most_bytes, 1))
        if not rows:
            rows = self._pace.next(now, room, max(most_bytes, 1))
        base = self._outbox.state().base if rows else 0
        # Where the link is full or gone, or the budget spent, the next wake or the reconnect comes back to this row.
        went = list(itertools.takewhile(lambda row: self._send(row, base), rows))
        if went:
            self._pace.save()
        if rows and len(went) == len(rows):
            self._wake.set()  # there may be more

    def _send(self, row: OutboxRow, base: int) -> bool:
        payload = self._message(row, base)
        if self._pace.holds(len(payload)):
            return False
        # Counted before it is published: the answer may come before publish returns.
        with self._lock:
            if not self._in_flight:
                self._resend_at = self._deadline()
            self._in_flight.append(row)
            before, self._sent_up_to = self._sent_up_to, row.last
        if self._link.publish(self._topic, payload):
            self._pace.sent(len(payload))
            with self._lock:
                self._totals["sent"] += 1
                if self._owed_since is None and self._in_flight:
                    self._owed_since = self._clock.monotonic()
            return True
        with self._lock:
            self._in_flight = deque(other for other in self._in_flight if other is not row)
            self._sent_up_to = before
        return False

    def _message(self, row: OutboxRow, base: int) -> bytes:
        try:
            window = decode(row.body, Insights.max_bytes)
        except ProtocolError as error:
            # The hub puts an empty window aside and acknowledges its numbers, so one damaged row holds up nothing.
            log.error("the stored window %d … %d is damaged (%s); it is sent empty", row.first, row.last, error)
            window = {}
        return Insights(
            device=self._device,
            epoch=self._epoch,
            first=row.first,
            last=row.last,
            base=base,
            window=window,
            channel=self._channel(),
        ).to_bytes()

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._patience * self._ack_timeout_s * random.uniform(0.75, 1.25)
