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

import logging
import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace

from edge_agent.observing import ladder
from edge_agent.observing.privacy import Privacy
from edge_agent.observing.store import Store
from edgeloop.insights import InsightsError, Window, WindowSchema
from edgeloop.insights.policy import OTHER, InsightsPolicy
from edgeloop.protocol import MAX_WINDOW_BYTES, ProtocolError, decode, encode
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

# What SQLite keeps for a row besides its body, roughly.
ROW_OVERHEAD_BYTES = 200
#: A row of a small group waits so long for others of its segment, seconds.
PATIENCE_S = 3600.0
#: Under a budget: what cannot leave within so long is merged in time, and what even then cannot leave within half a day
#: gives up more. So a window that is large, for its head statistics, waits for its turn rather than losing them.
MERGE_S, GIVE_UP_S = 3600.0, 43_200.0
_COLUMNS = "row, release, segment, windows, predictions, level, since, body"


def pack(window: Window) -> bytes:
    """A window as the bytes that the store keeps."""
    return encode(window.to_wire(), MAX_WINDOW_BYTES)


def unpack(body: bytes, schema: WindowSchema) -> Window:
    """The window in a row's body."""
    return Window.from_wire(decode(body, MAX_WINDOW_BYTES), schema)


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


@dataclass
class _Row:
    """A row without numbers; its key is the count of windows closed up to its first one."""

    row: int
    release: str
    segment: str
    windows: int
    predictions: int
    level: int
    since: float
    body: bytes


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
        schema_of: Callable[[str], WindowSchema],
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
        seq = _fact(db, "last_seq") + 1
        db.execute("INSERT OR REPLACE INTO fact VALUES ('last_seq', ?)", (seq,))
        self._insert(db, _Row(seq, release, segment, 1, predictions, 0, self._wall(), body))
        self._gather_groups(db)
        self._make_room(db)
        return seq

    # -- sending --------------------------------------------------------------------------------------------------

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
            query = (
                f"SELECT {_COLUMNS} FROM outbox WHERE first IS NULL AND row > ? AND predictions >= ? "
                "ORDER BY row LIMIT ?"
            )
            found = [_Row(*row) for row in db.execute(query, (above, policy.min_group, rows))]
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

    def _leaving(self, db: sqlite3.Connection, row: _Row, policy: InsightsPolicy) -> bytes:
        """The body as it leaves the device: without the aspects that are not wanted any more, and with its noise."""
        private = policy.privacy is not None and self._privacy is not None
        if policy.aspects is None and not private:
            return row.body
        window = self._window(row)
        if window is None:  # the hub puts it aside; what nobody can read here, nobody can treat
            return encode({}, MAX_WINDOW_BYTES) if private else row.body
        window = ladder.keep(window, policy.wants)
        if private and self._privacy is not None:
            window = self._privacy.leave(db, window)
        return pack(window)

    def _window(self, row: _Row) -> Window | None:
        """The window of a row; None when it is damaged: then it stays as it is, and the hub is told."""
        try:
            return unpack(row.body, self._schema_of(row.release))
        except (ProtocolError, InsightsError) as error:
            log.error("a stored window is damaged (%s); it is merged with no other", error)
            return None

    # -- room -----------------------------------------------------------------------------------------------------

    def _make_room(self, db: sqlite3.Connection) -> None:
        sent, unsent = db.execute(
            "SELECT COALESCE(SUM(CASE WHEN first IS NOT NULL THEN size END), 0), "
            "COALESCE(SUM(CASE WHEN first IS NULL THEN size END), 0) FROM outbox"
        ).fetchone()
        left = self._limit_bytes - sent
        for within_s, ways in ((MERGE_S, (self._merge_oldest,)), (GIVE_UP_S, (self._merge_oldest, self._give_up))):
            room = min(left, self._room(within_s))
            while unsent > room:
                saved = next((saved for way in ways if (saved := way(db, unsent - room)) is not None), None)
                if saved is None:
                    break
                unsent -= saved

    def _merge_oldest(self, db: sqlite3.Connection, most: float) -> int | None:
        """Merge the oldest two rows of one release and segment; returns the bytes saved, None when there are none."""
        found = db.execute(
            "SELECT release, segment FROM outbox WHERE first IS NULL GROUP BY release, segment "
            "HAVING COUNT(*) > 1 ORDER BY MIN(row) LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        query = (
            f"SELECT {_COLUMNS} FROM outbox WHERE first IS NULL AND release = ? AND segment = ? ORDER BY row LIMIT 2"
        )
        older, newer = (_Row(*row) for row in db.execute(query, found).fetchall())
        return self._merge(db, older, newer)

    def _merge(self, db: sqlite3.Connection, older: _Row, newer: _Row) -> int:
        """Make one row of two; returns the bytes saved. One that is damaged is set apart instead."""
        first, second = self._window(older), self._window(newer)
        if first is None or second is None:
            self._set_apart(db, older if first is None else newer)
            return 0
        merged = first.merge(second)
        row = replace(
            older,
            windows=older.windows + newer.windows,
            predictions=older.predictions + newer.predictions,
            # What is fine in one of them can still be made coarser.
            level=min(older.level, newer.level),
            since=min(older.since, newer.since),
            body=pack(merged),
        )
        return self._replace(db, row, [older, newer])

    def _give_up(self, db: sqlite3.Connection, most: float) -> int | None:
        """Let the row that has given up least, of those the oldest, give up more: what the next one has given up too.

        Args:
            db: with a transaction.
            most: bytes that are enough.

        Returns:
            The bytes saved; None when there is nothing to give up any more.
        """
        query = "SELECT row, level FROM outbox WHERE first IS NULL AND level < ? ORDER BY level, row LIMIT 2"
        found = db.execute(query, (ladder.TOP,)).fetchall()
        if not found:
            return None
        row = _Row(*db.execute(f"SELECT {_COLUMNS} FROM outbox WHERE row = ?", found[0][:1]).fetchone())
        level = max(found[1][1], row.level + 1) if len(found) > 1 else ladder.TOP
        return self._replace(db, self._less(row, len(row.body) - most, level), [row])

    def _less(self, row: _Row, most_bytes: float, level: int = ladder.TOP) -> _Row:
        """The row when it has given up as much as makes it so small, or a level, or lets it merge with another."""
        window = self._window(row)
        if window is None:
            return replace(row, level=ladder.TOP)
        body, now = row.body, row.level
        while now < level and len(body) > most_bytes and window.segment == row.segment:
            window, now = ladder.RUNGS[now].apply(window), now + 1
            body = pack(window)
        return replace(row, level=now, segment=window.segment, body=body)

    def _set_apart(self, db: sqlite3.Connection, row: _Row) -> None:
        values = (f"damaged {row.row}", ladder.TOP, row.row)
        db.execute("UPDATE outbox SET segment = ?, level = ? WHERE row = ?", values)

    def _replace(self, db: sqlite3.Connection, row: _Row, instead_of: list[_Row]) -> int:
        db.executemany("DELETE FROM outbox WHERE row = ?", [(old.row,) for old in instead_of])
        before = sum(len(old.body) + ROW_OVERHEAD_BYTES for old in instead_of)
        return before - self._insert(db, row)

    def _insert(self, db: sqlite3.Connection, row: _Row) -> int:
        """Write a row without numbers; returns its size."""
        # A row that is sent can give up nothing any more, and must leave room for the others.
        most_bytes = self._limit_bytes // 2 - ROW_OVERHEAD_BYTES
        while len(row.body) > most_bytes and row.level < ladder.TOP:
            row = self._less(row, most_bytes)
        size = len(row.body) + ROW_OVERHEAD_BYTES
        db.execute(
            f"INSERT INTO outbox (first, size, {_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (size, row.row, row.release, row.segment, row.windows, row.predictions, row.level, row.since, row.body),
        )
        return size

    # -- small groups ---------------------------------------------------------------------------------------------

    def _gather_groups(self, db: sqlite3.Connection) -> None:
        """Merge rows that hold too few predictions with others of their segment, or with the segment ``other``."""
        least = self._policy().min_group
        if not least:
            return
        while self._merge_small(db, least) or self._join_others(db, least):
            pass

    def _merge_small(self, db: sqlite3.Connection, least: int) -> bool:
        """Merge one row that holds too few with its neighbour; False when none has one."""
        small = "SELECT row, release, segment FROM outbox WHERE first IS NULL AND predictions < ? ORDER BY row"
        neighbour = (
            "SELECT row FROM outbox WHERE first IS NULL AND release = ? AND segment = ? AND row != ? "
            "ORDER BY ABS(row - ?) LIMIT 1"
        )
        both = f"SELECT {_COLUMNS} FROM outbox WHERE row IN (?, ?) ORDER BY row"
        for row, release, segment in db.execute(small, (least,)).fetchall():
            found = db.execute(neighbour, (release, segment, row, row)).fetchone()
            if found is not None:
                self._merge(db, *(_Row(*one) for one in db.execute(both, (row, found[0])).fetchall()))
                return True
        return False

    def _join_others(self, db: sqlite3.Connection, least: int) -> bool:
        """Give one row that has waited for long enough to the segment ``other``; False when there is none."""
        now = self._wall()
        found = db.execute(  # a clock that was set back must not keep it for ever
            f"SELECT {_COLUMNS} FROM outbox WHERE first IS NULL AND predictions < ? AND level < ? "
            "AND segment NOT IN ('', ?) AND NOT since BETWEEN ? AND ? LIMIT 1",
            (least, ladder.TOP, OTHER, now - PATIENCE_S, now),
        ).fetchone()
        if found is None:
            return False
        row = _Row(*found)
        window = self._window(row)
        if window is None:
            self._set_apart(db, row)
        else:
            self._replace(db, replace(row, segment=OTHER, body=pack(replace(window, segment=OTHER))), [row])
        return True


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
