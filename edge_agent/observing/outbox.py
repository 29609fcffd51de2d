"""The outbox: closed windows that wait until the hub says that it has committed them. Bounded in bytes, loses nothing.

Rules:

- Sequence numbers start at 1 in an epoch and have no gap. A row holds the numbers ``first … last``.
- A row that was ever sent keeps its numbers and its contents: the hub may have counted it already.
- Rows that were never sent are the outbox's own affair. When the limit is reached, the oldest neighbours of one release
  are merged; where neighbours are of different releases, never-sent rows change places first (sums do not care).
- What is left when nothing more can be merged (one row a release, and the few rows in flight) is kept, whatever its
  size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from edge_agent.observing.store import Store
from edgeloop.insights import Window, WindowSchema
from edgeloop.protocol import MAX_WINDOW_BYTES, decode, encode
from edgeloop.records import dataclass

# What SQLite keeps for a row besides its body, roughly.
ROW_OVERHEAD_BYTES = 200


def pack(window: Window) -> bytes:
    """A window as the bytes that the store keeps."""
    return encode(window.to_wire(), MAX_WINDOW_BYTES)


def unpack(body: bytes, schema: WindowSchema) -> Window:
    """The window in a row's body."""
    return Window.from_wire(decode(body, MAX_WINDOW_BYTES), schema)


@dataclass(frozen=True)
class OutboxRow:
    """One closed window, or several merged: numbers ``first … last`` of the epoch."""

    first: int
    last: int
    release: str
    body: bytes


@dataclass(frozen=True)
class OutboxState:
    """How much waits: ``base`` is the lowest number still held; with no row it is the next number to be given."""

    rows: int
    bytes: int
    base: int
    last_seq: int


class Outbox:
    """The rows in the store.

    Args:
        store: the device's database.
        limit_bytes: size that the rows may reach before old ones are merged.
        schema_of: schema of a release's windows.
    """

    def __init__(self, store: Store, limit_bytes: int, schema_of: Callable[[str], WindowSchema]) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._schema_of = schema_of

    @property
    def limit_bytes(self) -> int:
        """Size that the rows may reach before old ones are merged."""
        return self._limit_bytes

    def append(self, db: sqlite3.Connection, release: str, body: bytes) -> int:
        """Add a closed window inside the caller's transaction; returns its sequence number."""
        found = db.execute("SELECT value FROM fact WHERE name = 'last_seq'").fetchone()
        seq = (found[0] if found else 0) + 1
        db.execute("INSERT OR REPLACE INTO fact VALUES ('last_seq', ?)", (seq,))
        self._insert(db, OutboxRow(seq, seq, release, body))
        self._make_room(db)
        return seq

    def take_to_send(self, after: int, rows: int, most_bytes: int) -> list[OutboxRow]:
        """The next rows to send, at least one if there is any; they are marked as sent before they are returned.

        Args:
            after: only rows whose first number is higher.
            rows: at most so many.
            most_bytes: stop when they are larger together.

        Raises:
            StoreError: the database refused; nothing may be sent.
        """
        taken: list[OutboxRow] = []
        with self._store.transaction() as db:
            query = "SELECT first, last, release, body, sent FROM outbox WHERE first > ? ORDER BY first LIMIT ?"
            size, fresh = 0, []
            for first, last, release, body, sent in db.execute(query, (after, rows)):
                size += len(body)
                if taken and size > most_bytes:
                    break
                taken.append(OutboxRow(first, last, release, body))
                if not sent:
                    fresh.append((first,))
            db.executemany("UPDATE outbox SET sent = 1 WHERE first = ?", fresh)
        return taken

    def highest_sent(self) -> int:
        """Highest sequence number that the hub may know of: the last sent row's, or the one below all rows.

        Raises:
            StoreError: the database refused.
        """
        found = self._store.rows("SELECT MAX(last) FROM outbox WHERE sent = 1")[0][0]
        return int(found) if found is not None else self.state().base - 1

    def acknowledge(self, last: int) -> int:
        """Forget the sent rows up to ``last``; returns how many. A row that was never sent is never forgotten.

        Raises:
            StoreError: the database refused; the hub will be asked again.
        """
        with self._store.transaction() as db:
            return db.execute("DELETE FROM outbox WHERE sent = 1 AND last <= ?", (last,)).rowcount

    def state(self) -> OutboxState:
        """How much waits.

        Raises:
            StoreError: the database refused.
        """
        rows, size, base = self._store.rows("SELECT COUNT(*), COALESCE(SUM(size), 0), MIN(first) FROM outbox")[0]
        last_seq = self._store.fact("last_seq", 0)
        return OutboxState(rows, size, base or last_seq + 1, last_seq)

    def _insert(self, db: sqlite3.Connection, row: OutboxRow) -> None:
        size = len(row.body) + ROW_OVERHEAD_BYTES
        db.execute("INSERT INTO outbox VALUES (?, ?, ?, 0, ?, ?)", (row.first, row.last, row.release, size, row.body))

    def _make_room(self, db: sqlite3.Connection) -> None:
        while self._size(db) > self._limit_bytes:
            if not self._merge_oldest(db) and not (self._bring_together(db) and self._merge_oldest(db)):
                return

    def _size(self, db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT COALESCE(SUM(size), 0) FROM outbox").fetchone()[0])

    def _merge_oldest(self, db: sqlite3.Connection) -> bool:
        """Merge the oldest neighbours of one release that were never sent; False when there are none."""
        pair = db.execute(
            "SELECT a.first, b.first FROM outbox a JOIN outbox b ON b.first = a.last + 1 "
            "WHERE a.sent = 0 AND b.sent = 0 AND a.release = b.release ORDER BY a.first LIMIT 1"
        ).fetchone()
        if pair is None:
            return False
        query = "SELECT first, last, release, body FROM outbox WHERE first IN (?, ?) ORDER BY first"
        older, newer = (OutboxRow(*row) for row in db.execute(query, pair).fetchall())
        schema = self._schema_of(older.release)
        merged = unpack(older.body, schema).merge(unpack(newer.body, schema))
        db.execute("DELETE FROM outbox WHERE first IN (?, ?)", pair)
        self._insert(db, OutboxRow(older.first, newer.last, older.release, pack(merged)))
        return True

    def _bring_together(self, db: sqlite3.Connection) -> bool:
        """Number the never-sent rows anew, release by release; False when each has a release of its own."""
        query = "SELECT first, last, release FROM outbox WHERE sent = 0 ORDER BY first"
        unsent = db.execute(query).fetchall()
        releases = list(dict.fromkeys(release for _, _, release in unsent))
        if len(releases) == len(unsent):
            return False
        number = unsent[0][0]
        # Negative first, so that no new number meets an old one on the way.
        for first, last, _ in sorted(unsent, key=lambda row: (releases.index(row[2]), row[0])):
            span = last - first
            db.execute("UPDATE outbox SET first = ?, last = ? WHERE first = ?", (-number, number + span, first))
            number += span + 1
        db.execute("UPDATE outbox SET first = -first WHERE first < 0")
        return True
