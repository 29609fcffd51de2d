"""Rows of the outbox that have no numbers yet: added, merged, made smaller, set apart, inside one transaction.

A row holds one closed window, or several of one release and segment that were merged. Until it is sent it is the
outbox's own affair, and its key is the count of windows closed up to its first one.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.observing import ladder
from edgeloop.insights import InsightsError, Window, WindowSchema
from edgeloop.protocol import MAX_WINDOW_BYTES, ProtocolError, decode, encode
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

#: What SQLite keeps for a row besides its body, roughly.
ROW_OVERHEAD_BYTES = 200
_COLUMNS = "row, release, segment, windows, predictions, level, since, body"

SchemaOf = Callable[[str], WindowSchema]
"""Release digest → schema of its windows."""


def pack(window: Window) -> bytes:
    """A window as the store keeps it. One too large for a message loses its head statistics, never its counts."""
    try:
        return encode(window.to_wire(), MAX_WINDOW_BYTES)
    except ProtocolError as error:
        log.error("a window of %s cannot be sent whole (%s); its head statistics are left out", window.release, error)
        return encode(ladder.keep(window, lambda aspect: aspect != "head").to_wire(), MAX_WINDOW_BYTES)


def unpack(body: bytes, schema: WindowSchema) -> Window:
    """The window in a row's body.

    Raises:
        ProtocolError, InsightsError: it is damaged.
    """
    return Window.from_wire(decode(body, MAX_WINDOW_BYTES), schema)


@dataclass
class Row:
    """A row without numbers.

    Attributes:
        row: its key.
        release: digest.
        segment: of its windows.
        windows: how many were closed for it.
        predictions: in them.
        level: how many rungs of `ladder.RUNGS` it has given up.
        since: unix seconds when the first of them was closed.
        body: their sum, packed.
    """

    row: int
    release: str
    segment: str
    windows: int
    predictions: int
    level: int
    since: float
    body: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + ROW_OVERHEAD_BYTES

    def window(self, schema_of: SchemaOf) -> Window | None:
        """Its window; None when it is damaged: then it stays as it is, and the hub is told."""
        try:
            return unpack(self.body, schema_of(self.release))
        except (ProtocolError, InsightsError) as error:
            log.error("a stored window is damaged (%s); it is merged with no other", error)
            return None


class UnsentRows:
    """The rows without numbers.

    Args:
        db: with a transaction.
        limit_bytes: size that all rows of the outbox may reach; one of these at most half of it.
        schema_of: schema of a release's windows.
    """

    def __init__(self, db: sqlite3.Connection, limit_bytes: int, schema_of: SchemaOf) -> None:
        self._db, self.limit_bytes, self._schema_of = db, limit_bytes, schema_of

    def find(self, condition: str, values: Sequence[Any] = (), *, most: int = 1) -> list[Row]:
        """The oldest rows for which an SQL condition holds."""
        query = f"SELECT {_COLUMNS} FROM outbox WHERE first IS NULL AND {condition} ORDER BY row LIMIT ?"
        return [Row(*found) for found in self._db.execute(query, (*values, most))]

    def select(self, what: str, rest: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Something else of them than whole rows: SQL before and after ``FROM … WHERE …``."""
        return self._db.execute(f"SELECT {what} FROM outbox WHERE first IS NULL {rest}", values).fetchall()

    def sizes(self) -> tuple[int, int]:
        """Bytes of the rows that were sent, and of those that were not."""
        sent, unsent = self._db.execute(
            "SELECT COALESCE(SUM(CASE WHEN first IS NOT NULL THEN size END), 0), "
            "COALESCE(SUM(CASE WHEN first IS NULL THEN size END), 0) FROM outbox"
        ).fetchone()
        return sent, unsent

    def add(self, row: Row) -> int:
        """Write a row; returns its size. One that is too large gives up what it must."""
        # A row that is sent can give up nothing any more, and must leave room for the others.
        most_bytes = self.limit_bytes // 2 - ROW_OVERHEAD_BYTES
        while len(row.body) > most_bytes and row.level < ladder.TOP:
            row = self.less(row, most_bytes)
        self._db.execute(
            f"INSERT INTO outbox (first, size, {_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.size, row.row, row.release, row.segment, row.windows, row.predictions, row.level, row.since, row.body),
        )
        return row.size

    def replace(self, row: Row, instead_of: Sequence[Row]) -> int:
        """Write a row in place of others; returns the bytes saved."""
        self._db.executemany("DELETE FROM outbox WHERE row = ?", [(old.row,) for old in instead_of])
        return sum(old.size for old in instead_of) - self.add(row)

    def merge(self, older: Row, newer: Row) -> int:
        """Make one row of two; returns the bytes saved. One that is damaged is set apart instead."""
        first, second = older.window(self._schema_of), newer.window(self._schema_of)
        if first is None or second is None:
            self._set_apart(older if first is None else newer)
            return 0
        row = replace(
            older,
            windows=older.windows + newer.windows,
            predictions=older.predictions + newer.predictions,
            # What is fine in one of them can still be made coarser.
            level=min(older.level, newer.level),
            since=min(older.since, newer.since),
            body=pack(first.merge(second)),
        )
        return self.replace(row, [older, newer])

    def rename(self, row: Row, segment: str) -> None:
        """Give a row to another segment. One that is damaged is set apart instead."""
        window = row.window(self._schema_of)
        if window is None:
            self._set_apart(row)
        else:
            self.replace(replace(row, segment=segment, body=pack(replace(window, segment=segment))), [row])

    def less(self, row: Row, most_bytes: float, level: int = ladder.TOP) -> Row:
        """The row when it has given up as much as makes it so small, or a level, or lets it merge with another."""
        window = row.window(self._schema_of)
        if window is None:
            return replace(row, level=ladder.TOP)
        body, now = row.body, row.level
        while now < level and len(body) > most_bytes and window.segment == row.segment:
            window, now = ladder.RUNGS[now].apply(window), now + 1
            body = pack(window)
        return replace(row, level=now, segment=window.segment, body=body)

    def _set_apart(self, row: Row) -> None:
        values = (f"damaged {row.row}", ladder.TOP, row.row)
        self._db.execute("UPDATE outbox SET segment = ?, level = ? WHERE row = ?", values)
