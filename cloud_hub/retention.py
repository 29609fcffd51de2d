"""Retention: what is older is kept in longer intervals, minute → hour → day, by merging. No count is lost by it.

One hour, or one day, of one segment of a release on a channel is one transaction: its rows become one, or nothing has
happened. A window that arrives late makes a short row again, which is merged into the long one next time. Totals are
rows of their own and stay as they are, also when whole days are dropped at last.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, and_, delete, select

from cloud_hub.insights_store import InsightStore
from cloud_hub.records.database import Database
from cloud_hub.records.tables import head_windows, windows
from cloud_hub.window_rows import Addition, RowKey, add_row
from edgeloop.insights import Window

log = logging.getLogger(__name__)

HOUR_S, DAY_S = 3600.0, 86_400.0
#: Long intervals that are made in one tick, so that ingest waits for the database for a moment only.
MERGES_A_TICK = 50
#: What is kept in intervals.
TABLES = (windows, head_windows)


@dataclass(frozen=True)
class Keep:
    """How long windows are kept, seconds.

    Attributes:
        intervals_s: in the intervals that they were filed in.
        hours_s: by the hour.
        days_s: by the day; 0 for ever.
    """

    intervals_s: float = 2 * DAY_S
    hours_s: float = 60 * DAY_S
    days_s: float = 0.0


class Retention:
    """Makes long intervals of short ones.

    Args:
        db: the records.
        insights: the merged windows.
        keep: how long.
        clock: unix seconds.
    """

    def __init__(
        self, db: Database, insights: InsightStore, keep: Keep, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self._insights, self._keep, self._clock = db, insights, keep, clock

    def work(self) -> None:
        """Do a part of what is due."""
        self.tick()

    def tick(self) -> int:
        """Do a part of what is due; returns how many long intervals were made."""
        now, made = self._clock(), 0
        for length_s, kept_s in ((HOUR_S, self._keep.intervals_s), (DAY_S, self._keep.hours_s)):
            until = math.floor((now - kept_s) / length_s) * length_s
            for table in TABLES:
                for key in self._due(table, length_s, until, MERGES_A_TICK - made):
                    made += self._merge(table, key)
        if self._keep.days_s:
            for table in TABLES:
                self._drop(table, now - self._keep.days_s)
        return made

    def _due(self, table: Table, length_s: float, until: float, most: int) -> list[RowKey]:
        """Long intervals that have to be made, oldest first."""
        columns = [column for column in table.primary_key.columns if column is not table.c.resolution_s]
        query = select(*columns).where(table.c.resolution_s < length_s, table.c.interval_start < until)
        found: dict[RowKey, None] = {}
        with self._db.read() as connection:
            for channel, release, part, start in connection.execute(query.order_by(table.c.interval_start)):
                key = RowKey(channel, release, part, length_s, math.floor(start / length_s) * length_s)
                if key not in found and len(found) >= most:
                    break
                if self._insights.schema_of(release) is not None:
                    found[key] = None
        return list(found)

    def _merge(self, table: Table, key: RowKey) -> bool:
        schema, total, updated = self._insights.schema(key.release), None, 0.0
        short = _short(table, key)
        with self._db.begin() as connection:
            for row in connection.execute(select(table.c.data, table.c.merged, table.c.updated).where(short)):
                window = Window.from_bytes(row.data, schema)
                if total is None:
                    total = Addition(window, row.merged)
                else:
                    total = Addition(total.window.merge(window), total.merged + row.merged)
                updated = max(updated, row.updated)
            if total is None:
                return False
            connection.execute(delete(table).where(short))
            add_row(connection, table, schema, key, total, updated)
        return True

    def _drop(self, table: Table, before: float) -> None:
        old = and_(table.c.resolution_s == DAY_S, table.c.interval_start < before - DAY_S)
        with self._db.begin() as connection:
            dropped = connection.execute(delete(table).where(old)).rowcount
        if dropped:
            log.info("%d days of %s were older than they are kept", dropped, table.name)


def _short(table: Table, key: RowKey) -> ColumnElement[bool]:
    """The rows that a long one is made of."""
    channel, release, part, resolution_s, start = table.primary_key.columns
    return and_(
        channel == key.channel,
        release == key.release,
        part == key.part,
        resolution_s < key.resolution_s,
        start >= key.start,
        start < key.start + key.resolution_s,
    )
