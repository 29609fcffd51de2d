"""Durable marks: which files of a folder were taken, and which of them were no input.

A mark is there from when a file was answered or rejected until it has left the folder. A file that is changed
afterwards is another one.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.flows.ports import Trouble

_TABLE = """
CREATE TABLE IF NOT EXISTS mark (name BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, reason TEXT) WITHOUT ROWID
"""


class Stamp(NamedTuple):
    """What tells a file from the one before it with the same name: its size in bytes and its time of change."""

    size: int
    mtime_ns: int


class Marks:
    """Marks of one folder, in a database of their own. Used by one thread. Names are bytes, as file systems have them.

    Raises:
        Trouble: the database cannot be used; so from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)

    def has(self, name: bytes, stamp: Stamp) -> bool:
        """Whether this very file was taken."""
        with self._explained():
            found = self._db.execute("SELECT size, mtime_ns FROM mark WHERE name = ?", (name,)).fetchone()
        return found is not None and Stamp(*found) == stamp

    def add(self, name: bytes, stamp: Stamp, reason: str = "") -> None:
        """The file was taken; it is on the disk when this returns.

        Args:
            name: of the file.
            stamp: what it was.
            reason: why it was rejected, or "".
        """
        with self._explained():
            self._db.execute("INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?)", (name, *stamp, reason))

    def remove(self, name: bytes) -> None:
        """The file has left the folder: the name may come again."""
        with self._explained():
            self._db.execute("DELETE FROM mark WHERE name = ?", (name,))

    def all(self) -> list[tuple[bytes, Stamp, str]]:
        """Every mark: name, stamp, and the reason or ""."""
        with self._explained():
            return [
                (name, Stamp(size, mtime), why) for name, size, mtime, why in self._db.execute("SELECT * FROM mark")
            ]

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Trouble(
                f"{self._path} cannot be used: {error}; if it is damaged, delete it: files that are still there are "
                "then taken once more"
            ) from error
