"""The outbox: closed windows that wait until the hub says that it has committed them. Bounded in bytes, loses no count.

Rules:

- A row holds one closed window, or several of one release and segment that were merged. It gets its numbers,
  ``first … last``, when it is sent for the first time: one number for each closed window in it. Numbers start at 1 in
  an epoch and have no gap.
- A row that has numbers keeps them and its contents: the hub may have counted it already. Such rows take a quarter of
  the limit, or are one row.
- Rows without numbers are the outbox's own affair. Together they take what is left of the limit, and no more than may
  leave in time under the budget; a single one at most half of the limit. Else windows give up what
  `edge_agent.observing.ladder` says, in its order: the oldest neighbours are merged first, and counts are never lost.
- What is left when there is nothing more to give up, one row of counts a release, is kept whatever its size.
- A row with too few predictions for the policy waits, and is merged with the next ones of its release and segment; one
  that has waited for `PATIENCE_S` joins those of the segment ``other``.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable

from edge_agent.observing import ladder
from edge_agent.observing.privacy import Privacy
from edge_agent.observing.room import make_room
from edge_agent.observing.rows import ROW_OVERHEAD_BYTES, Row, SchemaOf, UnsentRows, pack
from edge_agent.observing.small_groups import gather
from edge_agent.observing.store import Store
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.protocol import MAX_WINDOW_BYTES, encode
from edgeloop.records import dataclass


@dataclass(frozen=True)
class OutboxRow:
    """What is sent: the numbers ``first … last`` of the epoch, and their window."""

    first: int
    last: int
    release: str
    body: bytes


@dataclass(frozen=True)
class OutboxState:
    """How much waits.

    Attributes:
        rows: that the hub has not acknowledged.
        bytes: their size.
        base: the lowest number that is held; where none is, the next one to be given.
        last_seq: closed windows so far: the number that the last of them has, or will have.
        unsent_rows: of the rows, those that were never sent.
        unsent_bytes: their size.
        newest: the key of the row that was closed last, or 0.
        level: what the unsent row that has given up most has given up, as `ladder.name_of` reads it.
    """

    rows: int
    bytes: int
    base: int
    last_seq: int
    unsent_rows: int = 0
    unsent_bytes: int = 0
    newest: int = 0
    level: int = 0


class Outbox:
    """The rows in the store.

    Args:
        store: the device's database.
        limit_bytes: size that the rows may reach.
        schema_of: schema of a release's windows.
        policy: the one in force.
        privacy: treats what leaves for the first time, or None.
        room: bytes that may leave within so many seconds under the budget.
        wall: unix seconds.
    """

    def __init__(
        self,
        store: Store,
        limit_bytes: int,
        schema_of: SchemaOf,
        *,
        policy: Callable[[], InsightsPolicy] = InsightsPolicy,
        privacy: Privacy | None = None,
        room: Callable[[float], float] = lambda seconds: math.inf,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._schema_of = schema_of
        self._policy = policy
        self._privacy = privacy
        self._room = room
        self._wall = wall

    @property
    def limit_bytes(self) -> int:
        """Size that the rows may reach."""
        return self._limit_bytes

    def append(self, db: sqlite3.Connection, release: str, segment: str, predictions: int, body: bytes) -> int:
        """Add a closed window inside the caller's transaction; returns how many have been closed in this epoch."""
        seq, now = _fact(db, "last_seq") + 1, self._wall()
        db.execute("INSERT OR REPLACE INTO fact VALUES ('last_seq', ?)", (seq,))
        rows = UnsentRows(db, self._limit_bytes, self._schema_of)
        rows.add(Row(seq, release, segment, 1, predictions, 0, now, body))
        gather(rows, self._policy().min_group, now)
        make_room(rows, self._room)
        return seq

    def sent_rows(self, after: int, rows: int, most_bytes: int) -> list[OutboxRow]:
        """Rows that have numbers already, in order, to be sent again.

        Args:
            after: only numbers above.
            rows: at most so many.
            most_bytes: stop when they are larger together; the first one comes whatever its size.

        Raises:
            StoreError: the database refused.
        """
        query = (
            "SELECT first, first + windows - 1, release, body FROM outbox "
            "WHERE first IS NOT NULL AND first > ? ORDER BY first LIMIT ?"
        )
        found = [OutboxRow(*row) for row in self._store.rows(query, (after, rows))]
        return found[: _fitting([len(row.body) for row in found], most_bytes)]

    def next_size(self, above: int = 0) -> int | None:
        """Size of the row that `send_next` would give first; None when there is none.

        Raises:
            StoreError: the database refused.
        """
        query = "SELECT size FROM outbox WHERE first IS NULL AND row > ? AND predictions >= ? ORDER BY row LIMIT 1"
        found = self._store.rows(query, (above, self._policy().min_group))
        return int(found[0][0]) if found else None

    def send_next(self, rows: int, most_bytes: int, above: int = 0) -> list[OutboxRow]:
        """The next rows that were never sent, oldest first. They have their numbers on the disk when this returns.

        Args:
            rows: at most so many.
            most_bytes: stop when they are larger together; the first one comes whatever its size.
            above: only rows whose key is higher: what was closed after it.

        Raises:
            StoreError: the database refused; nothing may be sent.
        """
        if self._privacy is not None:
            self._privacy.prepare()
        policy = self._policy()
        with self._store.transaction() as db:
            unsent = UnsentRows(db, self._limit_bytes, self._schema_of)
            found = unsent.find("row > ? AND predictions >= ?", (above, policy.min_group), most=rows)
            found = found[: _fitting([len(row.body) for row in found], most_bytes)]
            number = _fact(db, "numbered") + 1
            taken = []
            for row in found:
                body = self._leaving(db, row, policy)
                taken.append(OutboxRow(number, number + row.windows - 1, row.release, body))
                db.execute(
                    "UPDATE outbox SET first = ?, size = ?, body = ? WHERE row = ?",
                    (number, len(body) + ROW_OVERHEAD_BYTES, body, row.row),
                )
                number += row.windows
            if taken:
                db.execute("INSERT OR REPLACE INTO fact VALUES ('numbered', ?)", (number - 1,))
        return taken

    def acknowledge(self, last: int) -> int:
        """Forget the sent rows up to ``last``; returns how many. A row that was never sent is never forgotten.

        Raises:
            StoreError: the database refused; the hub will be asked again.
        """
        with self._store.transaction() as db:
            return db.execute(
                "DELETE FROM outbox WHERE first IS NOT NULL AND first + windows - 1 <= ?", (last,)
            ).rowcount

    def highest_sent(self) -> int:
        """Highest sequence number that the hub may know of.

        Raises:
            StoreError: the database refused.
        """
        return self._store.fact("numbered", 0)

    def state(self) -> OutboxState:
        """How much waits.

        Raises:
            StoreError: the database refused.
        """
        rows, size, first, sent, sent_size, newest, level = self._store.rows(
            "SELECT COUNT(*), COALESCE(SUM(size), 0), MIN(first), COUNT(first), "
            "COALESCE(SUM(CASE WHEN first IS NOT NULL THEN size END), 0), COALESCE(MAX(row), 0), "
            "COALESCE(MAX(CASE WHEN first IS NULL THEN level END), 0) FROM outbox"
        )[0]
        base = first if first is not None else self._store.fact("numbered", 0) + 1
        last_seq = self._store.fact("last_seq", 0)
        return OutboxState(rows, size, base, last_seq, rows - sent, size - sent_size, newest, level)

    def _leaving(self, db: sqlite3.Connection, row: Row, policy: InsightsPolicy) -> bytes:
        """The body as it leaves the device: without the aspects that are not wanted any more, and with its noise."""
        private = policy.privacy is not None and self._privacy is not None
        if policy.aspects is None and not private:
            return row.body
        window = row.window(self._schema_of)
        if window is None:  # the hub puts it aside; what nobody can read here, nobody can treat
            return encode({}, MAX_WINDOW_BYTES) if private else row.body
        window = ladder.keep(window, policy.wants)
        if private and self._privacy is not None:
            window = self._privacy.leave(db, window)
        return pack(window)


def _fact(db: sqlite3.Connection, name: str) -> int:
    found = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return int(found[0]) if found else 0


def _fitting(sizes: list[int], most_bytes: int) -> int:
    """How many of the first ones fit; one at least, if there is any."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and total > most_bytes:
            return count
    return len(sizes)
