"""A sink whose other side may be away: what it takes lies in a spool until the other side has it.

One thread carries the results over, in order, one at a time. What cannot be delivered now is tried again with full
jitter, for as long as it takes; what the other side says it will never take is given up, and noted with the reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from edge_agent.flow_settings import SpooledSinkSettings
from edge_agent.flows.backoff import Backoff
from edge_agent.flows.ports import FlowError, Item, Result, Stopped, Trouble
from edge_agent.flows.rejects import Rejects
from edge_agent.flows.spool import Record, Spool
from edge_agent.logs import Log

log = Log(__name__)

FIRST_RETRY_S = 0.5
#: How long the threads wait at once, seconds, before they look whether to stop.
LOOK_S = 0.5


class Undelivered(FlowError):
    """The other side could not be reached, or could not take it now."""


class Refused(FlowError):
    """The other side will never take this document."""


class Carrier(Protocol):
    """The other side's end: called by the sink's thread, one call at a time."""

    def open(self, wake: Callable[[], None]) -> None:
        """Begin; never waits for the other side. ``wake`` says that it is there now.

        Raises:
            Trouble: it cannot work at all.
        """

    def deliver(self, result: Result) -> None:
        """Hand over one result; when this returns the other side has it.

        Raises:
            Undelivered: not now.
            Refused: never.
        """

    def close(self, timeout_s: float) -> None:
        """End. Never raises."""


class SpooledSink:
    """Implements `edge_agent.flows.ports.Sink`.

    Args:
        settings: see docs/reference/flows.md.
        state: folder for the spool and for what was refused.
        carrier: the other side's end.
    """

    def __init__(self, settings: SpooledSinkSettings, state: Path, carrier: Carrier) -> None:
        self.name, self._settings, self._state, self._carrier = settings.name, settings, state, carrier
        self._spool: Spool | None = None
        self._rejects: Rejects | None = None
        self._changed = threading.Condition()
        self._retry_now = threading.Event()
        self._stopping = False
        self._under_way: int | None = None
        self._trouble = ""
        self._accepted = self._delivered = self._failures = self._dropped = self._refused = 0
        self._thread = threading.Thread(target=self._run, name=f"sink:{self.name}", daemon=True)

    # ── ports.Sink ────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Open the spool, with what waits from before, and begin to deliver."""
        # What a start that failed has opened is used by the next one.
        self._spool = self._spool or Spool(self._state / "spool.db", self._settings.spool_bytes)
        self._rejects = self._rejects or Rejects(self._state)
        self._carrier.open(self._wake)
        self._thread.start()

    def put(self, result: Result, stopping: threading.Event) -> None:
        """Lay the result into the spool; waits for room, or makes it, as the settings say."""
        while self._spool is not None and not self._stopping and not stopping.is_set():
            try:
                if self._spool.append(result):
                    with self._changed:
                        self._accepted += 1
                        self._changed.notify_all()
                    return
                if self._settings.when_full == "drop_oldest" and self._spool.drop_oldest(self._under_way):
                    self._dropped += 1
                    continue
            except Trouble as error:  # a full disk: the sources wait until there is space
                self._note(str(error))
            with self._changed:
                self._changed.wait(LOOK_S)
        raise Stopped("the sink stops")

    def stop(self, timeout_s: float) -> None:
        """End the thread; what waits stays in the spool."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._retry_now.set()
        if self._thread.ident is not None:
            until = time.monotonic() + timeout_s / 2
            self._thread.join(timeout_s / 2)
            self._carrier.close(max(until - time.monotonic(), 0) + timeout_s / 2)
            self._thread.join(LOOK_S)
            if self._thread.is_alive():
                log.warning("a sink did not end in time", sink=self.name)
                return
        if self._spool is not None:
            self._spool.close()
        if self._rejects is not None:
            self._rejects.close()

    def counts(self) -> Mapping[str, int]:
        """Running totals, and what waits."""
        return {
            "accepted": self._accepted,
            "delivered": self._delivered,
            "failures": self._failures,
            "refused": self._refused,
            "dropped": self._dropped,
            "waiting": 0 if self._spool is None else self._spool.rows,
            "waiting_bytes": 0 if self._spool is None else self._spool.bytes,
        }

    @property
    def trouble(self) -> str:
        """Why it does not deliver now, or ""."""
        return self._trouble

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        backoff = Backoff(FIRST_RETRY_S, self._settings.retry_s)
        while not self._stopping:
            try:
                record = self._next()
                if record is None:
                    continue
                self._carry(record)
                self._trouble = ""
                backoff.reset()
            except (Undelivered, Trouble) as error:
                self._later(str(error), backoff)
            except Exception as error:
                log.exception("a sink failed in an unforeseen way; it is tried again", sink=self.name)
                self._later(f"an unforeseen error, see the log: {error}", backoff)

    def _next(self) -> Record | None:
        assert self._spool is not None
        record = self._spool.first()
        if record is None:
            with self._changed:
                if not self._spool.rows and not self._stopping:
                    self._changed.wait(LOOK_S)
        return record

    def _carry(self, record: Record) -> None:
        assert self._spool is not None and self._rejects is not None
        self._under_way = record.seq
        try:
            try:
                self._carrier.deliver(record.result)
                self._delivered += 1
            except Refused as error:
                self._refused += 1
                item = Item(record.result.id, {"id": record.result.id, "source": record.result.source})
                self._rejects.add(item, str(error), record.result.document)
                if self._refused <= 10 or self._refused % 1000 == 0:
                    log.warning("a result was refused", sink=self.name, id=record.result.id, reason=str(error))
            self._spool.remove(record.seq)
        finally:
            self._under_way = None
        with self._changed:
            self._changed.notify_all()

    def _later(self, why: str, backoff: Backoff) -> None:
        self._failures += 1
        self._note(why)
        self._retry_now.wait(backoff.next())
        if not self._stopping:
            self._retry_now.clear()

    def _wake(self) -> None:
        self._retry_now.set()

    def _note(self, why: str) -> None:
        if why != self._trouble:
            log.warning("a sink cannot deliver; it is tried again", sink=self.name, reason=why)
        self._trouble = why
