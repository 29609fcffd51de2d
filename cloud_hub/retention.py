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

from sqlalchemy import ColumnElement, and_, delete, select

from cloud_hub.insights_store import Addition, InsightStore, RowKey, add_row
from cloud_hub.records.database import Database
from cloud_hub.records.tables import windows
from edgeloop.insights import Window

log = logging.getLogger(__name__)

HOUR_S, DAY_S = 3600.0, 86_400.0
#: Long intervals that are made in one tick, so that ingest waits for the database for a moment only.
MERGES_A_TICK = 50


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
            for key in self._due(length_s, until, MERGES_A_TICK - made):
                made += self._merge(key)
        if self._keep.days_s:
            self._drop(now - self._keep.days_s)
        return made

    def _due(self, length_s: float, until: float, most: int) -> list[RowKey]:
        """Long intervals that have to be made, oldest first."""
        table = windows.c
        columns = (table.channel, table.release, table.segment, table.interval_start)
        query = select(*columns).where(table.resolution_s < length_s, table.interval_start < until)
        found: dict[RowKey, None] = {}
        with self._db.read() as connection:
            for channel, release, segment, start in connection.execute(query.order_by(table.interval_start)):
                key = RowKey(channel, release, segment, length_s, math.floor(start / length_s) * length_s)
                if key not in found and len(found) >= most:
                    break
                if self._insights.schema_of(release) is not None:
                    found[key] = None
        return list(found)

    def _merge(self, key: RowKey) -> bool:
        schema, total, updated = self._insights.schema(key.release), None, 0.0
        short = _short(key)
        with self._db.begin() as connection:
            for row in connection.execute(select(windows.c.data, windows.c.merged, windows.c.updated).where(short)):
                window = Window.from_bytes(row.data, schema)
                if total is None:
                    total = Addition(window, row.merged)
                else:
                    total = Addition(total.window.merge(window), total.merged + row.merged)
                updated = max(updated, row.updated)
            if total is None:
                return False
            connection.execute(delete(windows).where(short))
            add_row(connection, schema, key, total, updated)
        return True

    def _drop(self, before: float) -> None:
        old = and_(windows.c.resolution_s == DAY_S, windows.c.interval_start < before - DAY_S)
        with self._db.begin() as connection:
            dropped = connection.execute(delete(windows).where(old)).rowcount
        if dropped:
            log.info("%d days of windows were older than they are kept", dropped)


def _short(key: RowKey) -> ColumnElement[bool]:
    """The rows that a long one is made of."""
    table = windows.c
    return and_(
        table.channel == key.channel,
        table.release == key.release,
        table.segment == key.segment,
        table.resolution_s < key.resolution_s,
        table.interval_start >= key.start,
        table.interval_start < key.start + key.resolution_s,
    )
