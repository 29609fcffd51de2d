"""Writes records of escalations soon after the answers, many in one transaction, so that no answer waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from cloud_hub.escalations.records import EscalationRecord, EscalationRecords, Key
from cloud_hub.quarantine import Quarantine, Refusal
from cloud_hub.records.database import Database

log = logging.getLogger(__name__)

#: What waits to be written, at most: while the disk is full, the oldest is lost, and counted.
MOST, MOST_BYTES = 10_000, 64 << 20
_AT_ONCE = 500
#: The first one waits for what follows it, seconds.
_GATHER_S = 0.02
_WAIT_S = 0.5
#: Wait after a transaction that failed, seconds.
_PAUSE_S = 1.0
#: The database is away, busy or full: it may be better later. Anything else is wrong with a record, and stays so.
_LATER = (InterfaceError, OperationalError, TimeoutError)


@dataclass(frozen=True)
class Written:
    """A record that is to be written.

    Attributes:
        record: the record.
        message: the message's bytes, where they are kept.
        until: unix seconds until when they are kept; None for as long as a person has to see them.
    """

    record: EscalationRecord
    message: bytes | None = None
    until: float | None = None


@dataclass(frozen=True, eq=False)
class _Waiting:
    what: Written | Refusal
    done: Callable[[Key], None]

    @property
    def size(self) -> int:
        return len((self.what.message or b"") if isinstance(self.what, Written) else self.what.payload)


class Writing:
    """What waits to be written down.

    Args:
        db: the records.
        records: of escalations.
        quarantine: keeps messages that are none.
    """

    def __init__(self, db: Database, records: EscalationRecords, quarantine: Quarantine) -> None:
        self._db, self._records, self._quarantine = db, records, quarantine
        self._queue: deque[_Waiting] = deque()
        self._bytes, self.lost = 0, 0
        self._filled = threading.Condition()

    def add(self, written: Written, done: Callable[[Key], None]) -> None:
        """Write a record soon; never waits. ``done(key)`` is called when it is written, or lost."""
        self._put(_Waiting(written, done))

    def refuse(self, refusal: Refusal) -> None:
        """Put a message into quarantine soon; never waits."""
        self._put(_Waiting(refusal, lambda _key: None))

    def run(self, stop: threading.Event) -> None:
        """Background work: write until ``stop``, then what is left."""
        while not stop.is_set():
            with self._filled:
                if not self._queue:
                    self._filled.wait(_WAIT_S)
                    continue
            stop.wait(_GATHER_S)
            if not self.flush():
                stop.wait(_PAUSE_S)
        self.flush()

    def flush(self) -> bool:
        """Write all that waits; False when the records cannot be written now."""
        while batch := self._take():
            try:
                self._write(batch)
            except _LATER as error:
                return self._put_back(batch, error)
            except Exception:
                if not self._write_each(batch):
                    return False
            else:
                self._done(batch)
        return True

    def _write(self, batch: Sequence[_Waiting]) -> None:
        with self._db.begin() as connection:
            for one in batch:
                if isinstance(one.what, Written):
                    self._records.write(connection, one.what.record, one.what.message, one.what.until)
                else:
                    self._quarantine.add(connection, [one.what])

    def _write_each(self, batch: Sequence[_Waiting]) -> bool:
        """One of them cannot be written: it is lost, and takes no other with it."""
        for place, one in enumerate(batch):
            try:
                self._write([one])
            except _LATER as error:
                return self._put_back(batch[place:], error)
            except Exception:
                log.exception("a record of an escalation cannot be written, and is lost")
                with self._filled:
                    self.lost += 1
            self._done([one])
        return True

    def _put_back(self, batch: Sequence[_Waiting], error: Exception) -> bool:
        log.error("%d records of escalations are not written yet: %s", len(batch), error)
        with self._filled:
            self._queue.extendleft(reversed(batch))
            self._bytes += sum(one.size for one in batch)
        return False

    def _put(self, one: _Waiting) -> None:
        lost = []
        with self._filled:
            self._queue.append(one)
            self._bytes += one.size
            while len(self._queue) > MOST or (self._bytes > MOST_BYTES and len(self._queue) > 1):
                lost.append(self._queue.popleft())
                self._bytes -= lost[-1].size
            self.lost += len(lost)
            self._filled.notify()
        self._done(lost)

    def _take(self) -> list[_Waiting]:
        with self._filled:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _AT_ONCE))]
            self._bytes -= sum(one.size for one in batch)
            return batch

    @staticmethod
    def _done(batch: Sequence[_Waiting]) -> None:
        for one in batch:
            if isinstance(one.what, Written):
                one.done(one.what.record.key)
