"""A spool: results that wait on the disk for the other side, first in, first out, bounded in bytes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.databases import opened_or_anew
from edge_agent.flows.ports import Result, Trouble
from edge_agent.logs import Log

log = Log(__name__)

_TABLE = """
CREATE TABLE IF NOT EXISTS spool (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, source TEXT NOT NULL, document BLOB NOT NULL
)
"""


class Record(NamedTuple):
    """A result that waits, and its number."""

    seq: int
    result: Result


class Spool:
    """Results in a database of their own; any thread may append, one takes.

    Args:
        path: the database; one that is damaged is moved aside, and a new one begun.
        max_bytes: of the documents, together.

    Raises:
        Trouble: the database cannot be used; so from every method.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open_or_replace()
            self.rows, self.bytes = self._db.execute("SELECT COUNT(*), TOTAL(LENGTH(document)) FROM spool").fetchone()
            self.bytes = int(self.bytes)

    def append(self, result: Result) -> bool:
        """Keep a result; it is on the disk when this returns. False: there is no room for it now."""
        size = len(result.document)
        with self._lock, self._explained():
            if self.rows and self.bytes + size > self._max_bytes:
                return False
            self._db.execute("INSERT INTO spool (id, source, document) VALUES (?, ?, ?)", result)
            self.rows, self.bytes = self.rows + 1, self.bytes + size
        return True

    def first(self) -> Record | None:
        """The oldest result."""
        with self._lock, self._explained():
            row = self._db.execute("SELECT seq, id, source, document FROM spool ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else Record(row[0], Result(row[1], row[2], bytes(row[3])))

    def remove(self, seq: int) -> None:
        """A result is delivered, or given up; one that is not there any more does not matter."""
        with self._lock, self._explained():
            self._remove(seq)

    def drop_oldest(self, keep: int | None) -> bool:
        """Give up the oldest result but the one that is under way; whether there was one.

        Args:
            keep: number of the one that is under way, or None.
        """
        with self._lock, self._explained():
            row = self._db.execute("SELECT seq FROM spool WHERE seq IS NOT ? ORDER BY seq LIMIT 1", (keep,)).fetchone()
            if row is not None:
                self._remove(row[0])
        return row is not None

    def close(self) -> None:
        """Close the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _remove(self, seq: int) -> None:
        row = self._db.execute("DELETE FROM spool WHERE seq = ? RETURNING LENGTH(document)", (seq,)).fetchone()
        if row is not None:
            self.rows, self.bytes = self.rows - 1, self.bytes - row[0]

    def _open_or_replace(self) -> sqlite3.Connection:
        def tell(aside: Path, error: sqlite3.Error) -> None:
            log.error("a spool is damaged; a new one begins", path=str(self._path), moved_to=str(aside), why=str(error))

        return opened_or_anew(self._path, lambda db: db.execute(_TABLE), tell)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Trouble(f"{self._path} cannot be used: {error}; is there space, and the right to write?") from error
