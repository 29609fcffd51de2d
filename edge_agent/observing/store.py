"""agent.db: the device's memory of what it has observed and not yet handed over.

One SQLite file, WAL, ``synchronous=FULL``, one connection that writes (SQLite before 3.51.3 can corrupt a WAL file that
several connections write), one process (a lock file says so).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent.databases import opened_or_anew

log = logging.getLogger(__name__)

_FORMAT = 2
_TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE note (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE release (digest TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE outbox (
  row INTEGER PRIMARY KEY, first INTEGER, release TEXT NOT NULL, segment TEXT NOT NULL, windows INTEGER NOT NULL,
  predictions INTEGER NOT NULL, level INTEGER NOT NULL, since REAL NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX outbox_plan ON outbox (first, release, segment, row, windows, predictions, level, size);
CREATE TABLE ledger (release TEXT PRIMARY KEY, totals TEXT NOT NULL);
CREATE TABLE open_window (
  release TEXT NOT NULL, segment TEXT NOT NULL, totals TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (release, segment));
CREATE TABLE prediction (chunk INTEGER PRIMARY KEY, release TEXT NOT NULL, body BLOB NOT NULL, labelled BLOB NOT NULL);
"""


#: What brings a file of an earlier format to the next one.
_STEPS = {
    1: """
CREATE TABLE note (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
ALTER TABLE outbox RENAME TO outbox_before;
ALTER TABLE open_window RENAME TO open_window_before;
CREATE TABLE outbox (
  row INTEGER PRIMARY KEY, first INTEGER, release TEXT NOT NULL, segment TEXT NOT NULL, windows INTEGER NOT NULL,
  predictions INTEGER NOT NULL, level INTEGER NOT NULL, since REAL NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX outbox_plan ON outbox (first, release, segment, row, windows, predictions, level, size);
CREATE TABLE open_window (
  release TEXT NOT NULL, segment TEXT NOT NULL, totals TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (release, segment));
INSERT INTO outbox SELECT last, CASE WHEN sent THEN first END, release, '', last - first + 1, 0, 0, 0, size, body
  FROM outbox_before;
INSERT INTO open_window SELECT release, '', totals, body FROM open_window_before;
INSERT OR REPLACE INTO fact SELECT 'numbered', COALESCE(
  (SELECT MIN(first) - 1 FROM outbox_before WHERE NOT sent), (SELECT value FROM fact WHERE name = 'last_seq'), 0);
DROP TABLE outbox_before;
DROP TABLE open_window_before""",
}


class StoreError(RuntimeError):
    """The device's database cannot be read or written; the message says what to do."""


class Store:
    """The open database.

    Attributes:
        path: of the file.
        epoch: number of this memory, > 0; made when the file is created, so a lost memory shows as a new epoch.
        unclean_restarts: starts that found that the agent before had not stopped in order.
        started_unclean: whether this start was one of them.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, or create it; a damaged one is moved aside and a new epoch begins.

        Raises:
            StoreError: another agent uses the folder, or the file cannot be opened or made.
        """
        self.path = path
        self._lock = threading.RLock()
        self._lock_file = _lock_folder(path)
        try:
            self._db = self._open_or_replace()
            self.epoch = self.fact("epoch", 0)
            self.started_unclean = bool(self.fact("running", 0))
            self.unclean_restarts = self.fact("unclean_restarts", 0) + self.started_unclean
            with self.transaction():
                self.set_fact("running", 1)
                self.set_fact("unclean_restarts", self.unclean_restarts)
        except BaseException:
            os.close(self._lock_file)
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything written inside is on the disk when this returns, or nothing is.

        Raises:
            StoreError: the database refused; nothing was written.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._explain(error) from error
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._explain(error) from error
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query.

        Raises:
            StoreError: the database refused.
        """
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def fact(self, name: str, default: int) -> int:
        """A remembered number."""
        found = self.rows("SELECT value FROM fact WHERE name = ?", (name,))
        return int(found[0][0]) if found else default

    def set_fact(self, name: str, value: int) -> None:
        """Remember a number; inside a transaction it is part of it."""
        with self._lock:
            try:
                self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def note(self, name: str) -> bytes | None:
        """Remembered bytes, or None."""
        found = self.rows("SELECT body FROM note WHERE name = ?", (name,))
        return bytes(found[0][0]) if found else None

    def set_note(self, name: str, body: bytes) -> None:
        """Remember bytes.

        Raises:
            StoreError: the database refused.
        """
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, body))

    def close(self, clean: bool) -> None:
        """Close the file; ``clean`` says that nothing was left open, so the next start is not an unclean one."""
        with self._lock:
            if self._lock_file < 0:
                return
            with contextlib.suppress(StoreError):
                if clean:
                    self.set_fact("running", 0)
            self._db.close()
            os.close(self._lock_file)
            self._lock_file = -1

    def _explain(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"{self.path}: {error}; check that the disk is not full and that the folder can be written. "
            "Counting goes on in memory and is written when that works again"
        )

    def _open_or_replace(self) -> sqlite3.Connection:
        def tell(aside: Path, error: sqlite3.Error) -> None:
            log.error("%s is damaged (%s); moved to %s, a new epoch begins", self.path, error, aside)

        try:
            return opened_or_anew(self.path, self._prepare, tell)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path} cannot be opened: {error}; check the folder's rights and space") from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == 0:
            _create(db)
        elif found in _STEPS:
            _bring_up(db, found)
        elif found != _FORMAT:
            raise StoreError(f"{self.path} has format {found}; this agent reads {_FORMAT}. Use the agent that wrote it")


def _lock_folder(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be used as the data folder: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(
            f"another edge-agent uses {path.parent}; stop it, or give this one a folder of its own"
        ) from error
    return handle


def _run(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.strip().split(";\n"):
        db.execute(statement.rstrip(";"))


def _bring_up(db: sqlite3.Connection, found: int) -> None:
    """A file of an earlier agent holds counts that nobody else has: it is brought to our format, never thrown away."""
    db.execute("BEGIN IMMEDIATE")
    for step in range(found, _FORMAT):
        _run(db, _STEPS[step])
    db.execute(f"PRAGMA user_version={_FORMAT}")
    db.execute("COMMIT")


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    _run(db, _TABLES)
    db.execute("INSERT INTO fact VALUES ('epoch', ?)", (_new_epoch(),))
    db.execute(f"PRAGMA user_version={_FORMAT}")
    db.execute("COMMIT")


def _new_epoch() -> int:
    """62 random bits: no two devices of a fleet have the same, also where they all began at 1970 in the same second.

    The hub refuses an epoch that another device had first: a data folder was copied then.
    """
    return (int.from_bytes(os.urandom(8), "big") >> 2) or 1
