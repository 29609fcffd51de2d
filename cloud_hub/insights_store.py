"""Merged windows: one row per channel, release, segment and interval. Storage grows with these, not with devices.

Intervals are of several lengths: what is older is kept in longer ones (``cloud_hub.retention``). A row is its own
interval whatever its length, so a reader adds up what it finds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from cloud_hub import head_groups
from cloud_hub.records.counters import RELEASE_COUNTS, Sums, add_lists, add_sums
from cloud_hub.records.database import Database
from cloud_hub.records.tables import head_windows, insight_totals, windows
from cloud_hub.window_rows import Addition, RowKey, add_row, gather
from edgeloop.insights import Window, WindowSchema

#: A device's clock that is ahead by so little is not wrong: its report and its window take their time.
CLOCK_TOLERANCE_S = 300.0
#: A window that claims to be older than this was made with a wrong clock, and is filed under the present.
MAX_AGE_S = 366 * 86_400.0


@dataclass(frozen=True)
class Merged:
    """One interval of one segment of one release on one channel.

    Attributes:
        channel: the channel.
        start: unix seconds, a multiple of the interval's length.
        resolution_s: the interval's length, seconds.
        updated: unix seconds when a window was last merged into it.
        merged: number of device windows in it.
        window: their sum.
    """

    channel: str
    start: float
    resolution_s: float
    updated: float
    merged: int
    window: Window


@dataclass
class Additions:
    """Windows of one transaction.

    Attributes:
        rows: by (channel, release, segment, interval start).
        labels: head statistics alone, by (channel, release, group of devices, interval start).
    """

    rows: dict[tuple[str, str, str, float], Addition] = field(default_factory=dict)
    labels: dict[tuple[str, str, str, float], Addition] = field(default_factory=dict)

    def add(self, channel: str, start: float, window: Window, merged: int = 1) -> None:
        """Add one device's window, or the sum of as many as ``merged`` says."""
        gather(self.rows, (channel, window.release, window.segment, start), window, merged)

    def add_labels(self, device: str, channel: str, start: float, window: Window) -> None:
        """Add the head statistics of one device's window to those of its group, where it has any."""
        if (labels := head_groups.labels_of(window)) is not None:
            gather(
                self.labels, (channel, window.release, head_groups.group_of(device, window.schema), start), labels, 1
            )


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

    def intervals_of(
        self, ends: Sequence[float], skews_s: Sequence[float], now: float
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Start of the interval that each device's window belongs to, and how old the window is.

        Args:
            ends: unix seconds by the devices' clocks.
            skews_s: each device's clock minus the hub's, seconds.
            now: the hub's clock, unix seconds.

        Returns:
            Starts, unix seconds by the hub's clock, never in the future. Ages, seconds; NaN for a window of the future
            or older than `MAX_AGE_S` (a device that started in 1970), which is filed under the present.
        """
        at = np.asarray(ends, np.float64) - np.asarray(skews_s, np.float64)
        believed = (now - MAX_AGE_S <= at) & (at <= now + CLOCK_TOLERANCE_S)
        at = np.where(believed, np.minimum(at, now), now)
        return np.floor(at / self.interval_s) * self.interval_s, np.where(believed, now - at, np.nan)

    def add(self, connection: Connection, additions: Additions, now: float) -> None:
        """Add windows to their rows and to the totals, inside the caller's transaction."""
        totals: dict[tuple[str, ...], Sums] = {}
        for table, rows in ((windows, additions.rows), (head_windows, additions.labels)):
            for (channel, release, part, start), addition in rows.items():
                key = RowKey(channel, release, part, self.interval_s, start)
                add_row(connection, table, self.schema(release), key, addition, now)
        for (channel, release, _, _), addition in additions.rows.items():
            sums = totals.setdefault((channel, release), Sums())
            sums.add(count_window(addition.window), class_counts(addition.window))
            sums.add({"windows": addition.merged, "correct": correct(addition.window)})
        add_sums(connection, insight_totals, totals, RELEASE_COUNTS)

    def rows(
        self,
        channel: str | None = None,
        release: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        segment: str | None = None,
        updated_since: float | None = None,
    ) -> list[Merged]:
        """Merged windows by start, then release and segment; arguments as in :meth:`each`."""
        return list(self.each(channel, release, since, until, segment=segment, updated_since=updated_since))

    def each(
        self,
        channel: str | None = None,
        release: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        segment: str | None = None,
        updated_since: float | None = None,
    ) -> Iterator[Merged]:
        """Merged windows one after the other, since all of them may be large.

        Args:
            channel: only this channel's.
            release: only this release's.
            since: first interval start, unix seconds.
            until: first interval start that is no longer taken, unix seconds.
            segment: only this segment's.
            updated_since: only rows into which something was merged at this time or later.
        """
        table = windows.c
        bounds = (
            (channel, table.channel.__eq__),
            (release, table.release.__eq__),
            (since, table.interval_start.__ge__),
            (until, table.interval_start.__lt__),
            (segment, table.segment.__eq__),
            (updated_since, table.updated.__ge__),
        )
        query = select(windows).where(*(compare(value) for value, compare in bounds if value is not None))
        order = (table.interval_start, table.release, table.segment, table.resolution_s)
        with self._db.read() as connection:
            for row in connection.execute(query.order_by(*order)):
                window = Window.from_bytes(row.data, self.schema(row.release))
                yield Merged(row.channel, row.interval_start, row.resolution_s, row.updated, row.merged, window)

    def range(
        self, channel: str, release: str | None = None, since: float | None = None, until: float | None = None
    ) -> list[tuple[float, Window]]:
        """(interval start, merged window) by start, with all segments in one; arguments as in :meth:`each`."""
        found: dict[tuple[float, str], Window] = {}
        for row in self.each(channel, release, since, until):
            key, window = (row.start, row.window.release), row.window.without_segment()
            found[key] = window if key not in found else found[key].merge(window)
        return [(start, window) for (start, _), window in found.items()]

    def merged(
        self, channel: str, release: str, since: float | None = None, until: float | None = None
    ) -> Window | None:
        """The sum of a release's windows on a channel, or None when there are none; arguments as in :meth:`each`."""
        return merge_all(row.window.without_segment() for row in self.each(channel, release, since, until))

    def totals(self, channel: str | None = None, release: str | None = None) -> dict[str, Any]:
        """What was counted: predictions, errors, feedback, …, classes, and the same by release."""
        query = select(insight_totals)
        if channel is not None:
            query = query.where(insight_totals.c.channel == channel)
        if release is not None:
            query = query.where(insight_totals.c.release == release)
        total: Counter[str] = Counter(dict.fromkeys(RELEASE_COUNTS, 0))
        classes: list[int] = []
        by_release: dict[str, dict[str, Any]] = {}
        with self._db.read() as connection:
            for row in connection.execute(query):
                counts, own = {name: getattr(row, name) for name in RELEASE_COUNTS}, json.loads(row.classes_json)
                total.update(counts)
                classes = add_lists(classes, own)
                entry = by_release.setdefault(row.release, {**dict.fromkeys(RELEASE_COUNTS, 0), "classes": []})
                for name, value in counts.items():
                    entry[name] += value
                entry["classes"] = add_lists(entry["classes"], own)
        return {**total, "classes": classes, "by_release": by_release}

    def by_release(self) -> list[tuple[str, str, dict[str, int]]]:
        """(channel, release, what was counted there, ever)."""
        query = select(insight_totals).order_by(insight_totals.c.channel, insight_totals.c.release)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return [(row.channel, row.release, {name: getattr(row, name) for name in RELEASE_COUNTS}) for row in rows]

    def lately(self, seconds: float, names: Sequence[str]) -> dict[tuple[str, str], Window]:
        """(channel, release) → the sum of its latest intervals, with the arrays of these names only."""
        found: dict[tuple[str, str], Window] = {}
        for row in self.each(since=self._clock() - seconds):
            key, window = (row.channel, row.window.release), row.window.without_segment().only(names)
            found[key] = window if key not in found else found[key].merge(window)
        return found

    def schema(self, release: str) -> WindowSchema:
        """The schema of a stored window's release; raises `LookupError`."""
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
    """The counts of a window by the names of ``WINDOW_COUNTS``, without ``windows``."""
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


def correct(window: Window) -> int:
    """Labels that agree with the prediction."""
    return int(np.trace(window.arrays["confusion"])) if "confusion" in window.arrays else 0
