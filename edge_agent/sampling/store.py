"""samples.db: samples that wait for the hub, within a limit of bytes; a file of its own, since an owner may delete it.

SQLite, WAL, ``synchronous=FULL``: a sample is whole on the disk or not there, whenever the power goes. What is deleted
is overwritten (``secure_delete``), and the file goes when no sample may be kept any more. Numbers are remembered in
agent.db, in steps: they go on where the file was deleted, so the hub never takes a new sample for an old one.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.observing.store import Store
from edgeloop.protocol import ProtocolError, Sample
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

_FACT = "samples/number"
#: Numbers that are taken from agent.db at once; what a stop leaves of them is never used.
STEP = 64
#: Samples that the hub has, and of which a label may still come.
MOST_KNOWN = 10_000
_WAITS, _KNOWN = 0, 1
_TABLE = """
CREATE TABLE IF NOT EXISTS sample (number INTEGER PRIMARY KEY, id TEXT NOT NULL, place INTEGER NOT NULL,
  state INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL)"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS sample_id ON sample (id, place)",
    "CREATE INDEX IF NOT EXISTS sample_state ON sample (state, number, size)",
)


class SamplesError(RuntimeError):
    """The file cannot be read or written; the message says why."""


@dataclass(frozen=True)
class Waiting:
    """A sample that the hub has not acknowledged: its number and its message."""

    number: int
    body: bytes


class SampleStore:
    """Samples of this device; for any thread.

    Args:
        path: of the file.
        agent: agent.db.
        limit_bytes: of what waits; beyond it the oldest goes.

    Raises:
        SamplesError: it cannot be used.
    """

    def __init__(self, path: Path, agent: Store, limit_bytes: int) -> None:
        self._path, self._agent, self.limit_bytes = path, agent, limit_bytes
        self._lock = threading.RLock()
        self._next = self._reserved = agent.fact(_FACT, 0) + 1
        #: Samples that had to make room before the hub had them, since the start.
        self.dropped = 0
        try:
            self._db = self._open_or_replace()
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def add(self, made: Callable[[int], Sample], fits: Callable[[int], bool]) -> int:
        """Keep a sample; returns its bytes, 0 where it does not fit.

        Args:
            made: gives it, told its number.
            fits: whether so many bytes may be kept.

        Raises:
            SamplesError: the file cannot be written.
            ProtocolError: it cannot be sent as it is, or is larger than all that may wait.
        """
        with self._lock:
            sample = made(self._number())
            body = sample.to_bytes()
            if len(body) > self.limit_bytes:
                raise ProtocolError(
                    f"a sample of {len(body)} bytes has no place in samples_max_bytes = {self.limit_bytes}"
                )
            if not fits(len(body)):
                return 0
            with self._transaction() as db:
                self._make_room(db, len(body))
                self._insert(db, sample, _WAITS, body)
        return len(body)

    def waiting(self, after: int, most: int) -> list[Waiting]:
        """Samples above a number that the hub has not acknowledged, the oldest first."""
        query = "SELECT number, body FROM sample WHERE state = ? AND number > ? ORDER BY number LIMIT ?"
        return [Waiting(number, bytes(body)) for number, body in self._rows(query, _WAITS, after, most)]

    def done(self, numbers: Iterable[int]) -> int:
        """The hub has these, or will not have them: their inputs go. Returns how many waited."""
        found = 0
        with self._transaction() as db:
            for number in numbers:
                query = "SELECT body FROM sample WHERE number = ? AND state = ?"
                if (row := db.execute(query, (number, _WAITS)).fetchone()) is None:
                    continue
                found += 1
                sample = _read(row[0])
                if sample is None or sample.label is not None:
                    db.execute("DELETE FROM sample WHERE number = ?", (number,))
                else:
                    light = replace(sample, tensors={}).to_bytes()
                    change = "UPDATE sample SET state = ?, body = ?, size = ? WHERE number = ?"
                    db.execute(change, (_KNOWN, light, len(light), number))
            forget = "DELETE FROM sample WHERE state = ? AND number <= (SELECT number FROM sample WHERE state = ? "
            db.execute(forget + "ORDER BY number DESC LIMIT 1 OFFSET ?)", (_KNOWN, _KNOWN, MOST_KNOWN))
        return found

    def label(self, prediction_id: str, place: int, label: int) -> bool:
        """A sample's true label is known: it goes with the sample, or after it where the hub has that already."""
        query = "SELECT number, state, body FROM sample WHERE id = ? AND place = ? ORDER BY number DESC LIMIT 1"
        with self._lock:
            if not (rows := self._rows(query, prediction_id, place)):
                return False
            number, state, body = rows[0]
            if (sample := _read(body)) is None or sample.label is not None:
                return False
            labelled = replace(sample, label=label, number=number if state == _WAITS else self._number())
            with self._transaction() as db:
                db.execute("DELETE FROM sample WHERE number = ?", (number,))
                self._insert(db, labelled, _WAITS, labelled.to_bytes())
        return True

    def size(self) -> tuple[int, int]:
        """How many samples wait, and their bytes."""
        rows = self._rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM sample WHERE state = ?", _WAITS)
        return int(rows[0][0]), int(rows[0][1])

    def clear(self) -> None:
        """Delete everything."""
        with self._transaction() as db:
            db.execute("DELETE FROM sample")

    def close(self) -> None:
        """Close the file; what waits stays."""
        with self._lock:
            self._db.close()

    def _insert(self, db: sqlite3.Connection, sample: Sample, state: int, body: bytes) -> None:
        values = (sample.number, sample.id, sample.index, state, len(body), body)
        db.execute("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?)", values)

    def _make_room(self, db: sqlite3.Connection, wanted: int) -> None:
        total = db.execute("SELECT COALESCE(SUM(size), 0) FROM sample WHERE state = ?", (_WAITS,)).fetchone()[0]
        oldest = db.execute("SELECT number, size FROM sample WHERE state = ? ORDER BY number", (_WAITS,))
        gone = []
        while total + wanted > self.limit_bytes and (row := oldest.fetchone()) is not None:
            gone.append((row[0],))
            total -= row[1]
        db.executemany("DELETE FROM sample WHERE number = ?", gone)
        self.dropped += len(gone)

    def _number(self) -> int:
        """The next number; the caller holds the lock."""
        if self._next >= self._reserved:
            self._agent.set_fact(_FACT, self._next + STEP - 1)
            self._reserved = self._next + STEP
        self._next += 1
        return self._next - 1

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db as db:
                    db.execute("BEGIN IMMEDIATE")
                    yield db
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _error(self, error: Exception) -> SamplesError:
        return SamplesError(f"{self._path}: {error}; no samples are kept until the disk has room and can be written")

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return _open(self._path)
        except sqlite3.OperationalError:  # a full disk or a folder without rights is no damage
            raise
        except sqlite3.DatabaseError as error:
            log.error("%s is damaged (%s); the samples in it are lost", self._path, error)
            delete(self._path)
            return _open(self._path)


def delete(path: Path) -> bool:
    """Delete the file and what SQLite keeps beside it; returns whether there was one."""
    found = path.exists()
    for end in ("-wal", "-shm", ""):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return found


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)  # inputs are nobody else's business
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            db.execute(f"PRAGMA {pragma}")
        for statement in (_TABLE, *_INDEXES):
            db.execute(statement)
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    except BaseException:
        db.close()
        raise
    return db


def _read(body: bytes) -> Sample | None:
    try:
        return Sample.from_bytes(bytes(body))
    except ProtocolError as error:  # of another version of the agent
        log.warning("a stored sample cannot be read: %s", error)
        return None
