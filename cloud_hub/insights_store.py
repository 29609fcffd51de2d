"""Merged windows: one row per channel, release and interval: storage grows with releases and time, not with devices."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, and_, select

from cloud_hub.records.counters import WINDOW_COUNTS, add_counts, add_lists
from cloud_hub.records.database import Database
from cloud_hub.records.tables import insight_totals, windows
from edgeloop.insights import Window, WindowSchema

#: A window that claims to be older than this was made with a wrong clock, and is filed under the present.
MAX_AGE_S = 366 * 86_400.0


@dataclass(frozen=True)
class Merged:
    """One interval of one release on one channel.

    Attributes:
        start: unix seconds, a multiple of the interval's length.
        updated: unix seconds when a window was last merged into it.
        merged: number of device windows in it.
        window: their sum.
    """

    start: float
    updated: float
    merged: int
    window: Window


@dataclass
class Addition:
    """Windows that are to be added to one row; merged in memory first."""

    window: Window
    merged: int = 1

    def add(self, window: Window) -> None:
        """Merge one more window of the same row."""
        self.window = self.window.merge(window)
        self.merged += 1


@dataclass
class Additions:
    """Windows of one transaction by (channel, release, interval start)."""

    rows: dict[tuple[str, str, float], Addition] = field(default_factory=dict)

    def add(self, channel: str, start: float, window: Window) -> None:
        """Add one device's window."""
        key = (channel, window.release, start)
        if (row := self.rows.get(key)) is None:
            self.rows[key] = Addition(window)
        else:
            row.add(window)


class InsightStore:
    """The merged windows of a hub.

    Args:
        db: the records.
        schema_of: release digest → schema of its windows, or None when the hub has no such release.
        interval_s: length of an interval, seconds.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        schema_of: Callable[[str], WindowSchema | None],
        *,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self.schema_of, self.interval_s, self._clock = db, schema_of, interval_s, clock

    def interval_of(self, window: Window, *, skew_s: float = 0.0, now: float) -> float:
        """Start of the interval that a device's window belongs to.

        Args:
            window: its ``end`` is by the device's clock.
            skew_s: the device's clock minus the hub's, seconds.
            now: the hub's clock, unix seconds.

        Returns:
            Unix seconds by the hub's clock, never in the future; the present for a window that claims to be older than
            `MAX_AGE_S` (a device that started in 1970).
        """
        at = window.end - skew_s
        if not now - MAX_AGE_S <= at <= now:
            at = now
        return math.floor(at / self.interval_s) * self.interval_s

    def add(self, connection: Connection, additions: Additions, now: float) -> None:
        """Add windows to their rows and to the totals, inside the caller's transaction."""
        totals: dict[tuple[str, str], tuple[Counter[str], list[int]]] = {}
        for (channel, release, start), addition in additions.rows.items():
            self._merge_row(connection, channel, release, start, addition, now)
            counts, classes = totals.setdefault((channel, release), (Counter(), []))
            counts.update(count_window(addition.window), windows=addition.merged)
            classes[:] = add_lists(classes, class_counts(addition.window))
        for (channel, release), (counts, classes) in totals.items():
            key = {"channel": channel, "release": release}
            add_counts(connection, insight_totals, key, counts, classes, WINDOW_COUNTS)

    def rows(
        self,
        channel: str,
        release: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        updated_since: float | None = None,
    ) -> list[Merged]:
        """Merged windows of a channel by start.

        Args:
            channel: the channel.
            release: only this release's.
            since: first interval start, unix seconds.
            until: first interval start that is no longer taken, unix seconds.
            updated_since: only rows into which something was merged at this time or later.
        """
        table = windows.c
        conditions = [table.channel == channel]
        if release is not None:
            conditions.append(table.release == release)
        if since is not None:
            conditions.append(table.interval_start >= since)
        if until is not None:
            conditions.append(table.interval_start < until)
        if updated_since is not None:
            conditions.append(table.updated >= updated_since)
        query = select(windows).where(and_(*conditions)).order_by(table.interval_start, table.release)
        with self._db.read() as connection:
            found = connection.execute(query).all()
        return [
            Merged(row.interval_start, row.updated, row.merged, Window.from_bytes(row.data, self._schema(row.release)))
            for row in found
        ]

    def range(
        self, channel: str, release: str | None = None, since: float | None = None, until: float | None = None
    ) -> list[tuple[float, Window]]:
        """(interval start, merged window), by start; arguments as in :meth:`rows`."""
        return [(row.start, row.window) for row in self.rows(channel, release, since, until)]

    def merged(
        self, channel: str, release: str, since: float | None = None, until: float | None = None
    ) -> Window | None:
        """The sum of a release's windows on a channel, or None when there are none; arguments as in :meth:`rows`."""
        return merge_all(window for _, window in self.range(channel, release, since, until))

    def totals(self, channel: str | None = None, release: str | None = None) -> dict[str, Any]:
        """What was counted: predictions, errors, feedback, …, classes, and the same by release."""
        query = select(insight_totals)
        if channel is not None:
            query = query.where(insight_totals.c.channel == channel)
        if release is not None:
            query = query.where(insight_totals.c.release == release)
        total: Counter[str] = Counter(dict.fromkeys(WINDOW_COUNTS, 0))
        classes: list[int] = []
        by_release: dict[str, dict[str, Any]] = {}
        with self._db.read() as connection:
            for row in connection.execute(query):
                counts, own = {name: getattr(row, name) for name in WINDOW_COUNTS}, json.loads(row.classes_json)
                total.update(counts)
                classes = add_lists(classes, own)
                entry = by_release.setdefault(row.release, {**dict.fromkeys(WINDOW_COUNTS, 0), "classes": []})
                for name, value in counts.items():
                    entry[name] += value
                entry["classes"] = add_lists(entry["classes"], own)
        return {**total, "classes": classes, "by_release": by_release}

    def _merge_row(
        self, connection: Connection, channel: str, release: str, start: float, addition: Addition, now: float
    ) -> None:
        table = windows.c
        where = and_(table.channel == channel, table.release == release, table.interval_start == start)
        row = connection.execute(select(table.data, table.merged).where(where)).first()
        window, merged = addition.window, addition.merged
        if row is not None:
            window = Window.from_bytes(row.data, self._schema(release)).merge(window)
            merged += row.merged
        values = {
            "predictions": window.predictions,
            "errors": window.errors,
            "feedback": window.feedback,
            "escalations": window.escalations,
            "merged": merged,
            "updated": now,
            "data": window.to_bytes(),
        }
        if row is None:
            key = {"channel": channel, "release": release, "interval_start": start}
            connection.execute(windows.insert().values(**key, **values))
        else:
            connection.execute(windows.update().where(where).values(**values))

    def _schema(self, release: str) -> WindowSchema:
        schema = self.schema_of(release)
        if schema is None:
            raise LookupError(f"the release {release} of a stored window is gone")
        return schema


def merge_all(found: Iterable[Window]) -> Window | None:
    """The sum of windows, or None for none."""
    total: Window | None = None
    for window in found:
        total = window if total is None else total.merge(window)
    return total


def count_window(window: Window) -> dict[str, int]:
    """The counts of a window by the names of `WINDOW_COUNTS`, without ``windows``."""
    return {
        "predictions": window.predictions,
        "errors": window.errors,
        "feedback": window.feedback,
        "escalations": window.escalations,
        "nonfinite": window.nonfinite,
    }


def class_counts(window: Window) -> list[int]:
    """Predictions per class."""
    return [int(n) for n in np.asarray(window.arrays["classes"])]
