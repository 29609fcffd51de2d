"""The records of the drift watch: how far each release was evaluated, its streak, its latest report, its references."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from cloud_hub.records.decision_tables import drift_days, drift_watches
from cloud_hub.records.tables import windows
from edgeloop.insights.alarming import Streak


@dataclass(frozen=True)
class Watch:
    """How far the windows of a release on a channel were evaluated.

    Attributes:
        channel: the channel.
        release: digest of the release.
        cursor: unix seconds; intervals that start before it have been evaluated.
        streak: what the latest comparisons said.
        evaluations: number of comparisons so far.
        evaluated_at: unix seconds of the latest one; 0 before the first.
        report: the latest report, or empty.
        baseline: bytes of the release's own first windows, or None; see ``drift_references``.
    """

    channel: str
    release: str
    cursor: float
    streak: Streak
    evaluations: int = 0
    evaluated_at: float = 0.0
    report: Mapping[str, Any] | None = None
    baseline: bytes | None = None


def find_watch(connection: Connection, channel: str, release: str) -> Watch:
    """The watch; one that begins with the first interval where there is none yet."""
    table = drift_watches
    query = select(table).where(table.c.channel == channel, table.c.release == release)
    row = connection.execute(query).first()
    return Watch(channel, release, cursor=0.0, streak=Streak()) if row is None else _watch(row)


def all_watches(connection: Connection, channel: str | None = None) -> Sequence[Watch]:
    """Every watch, the one that was evaluated last first."""
    query = select(drift_watches).order_by(drift_watches.c.evaluated_at.desc())
    if channel is not None:
        query = query.where(drift_watches.c.channel == channel)
    return [_watch(row) for row in connection.execute(query)]


def write_watch(connection: Connection, watch: Watch) -> None:
    """Write the watch's row."""
    table = drift_watches
    where = and_(table.c.channel == watch.channel, table.c.release == watch.release)
    values = {
        "cursor": watch.cursor,
        "streak": watch.streak.drifted,
        "streak_since": watch.streak.since,
        "streak_settled": watch.streak.settled,
        "quiet": watch.streak.quiet,
        "evaluations": watch.evaluations,
        "evaluated_at": watch.evaluated_at,
        "report_json": json.dumps(watch.report),
        "baseline": watch.baseline,
    }
    if not connection.execute(table.update().where(where).values(**values)).rowcount:
        connection.execute(table.insert().values(channel=watch.channel, release=watch.release, **values))


def interval_counts(
    connection: Connection, channel: str, release: str, since: float, until: float
) -> Sequence[tuple[float, int]]:
    """(interval start, predictions) by start, without reading any window."""
    table = windows.c
    conditions = (
        table.channel == channel,
        table.release == release,
        table.interval_start >= since,
        table.interval_start < until,
    )
    total = func.sum(table.predictions).label("predictions")  # of all segments
    query = select(table.interval_start, total).where(*conditions).group_by(table.interval_start)
    return [(row.interval_start, row.predictions) for row in connection.execute(query.order_by(table.interval_start))]


def first_interval(connection: Connection, channel: str, release: str) -> float | None:
    """Start of the release's first interval on the channel, or None."""
    query = select(func.min(windows.c.interval_start)).where(windows.c.channel == channel, windows.c.release == release)
    found = connection.execute(query).scalar()
    return None if found is None else float(found)


def days(connection: Connection, channel: str, release: str, since: int, until: int) -> Mapping[int, bytes]:
    """Day number → bytes of that day's merged window, for days in [since, until)."""
    table = drift_days.c
    query = select(table.day, table.data).where(
        table.channel == channel, table.release == release, table.day >= since, table.day < until
    )
    return {row.day: bytes(row.data) for row in connection.execute(query)}


def write_day(connection: Connection, channel: str, release: str, day: int, predictions: int, data: bytes) -> None:
    """Write a day's merged window; one that is there stays."""
    table = drift_days
    key = {"channel": channel, "release": release, "day": day}
    where = and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(select(table.c.day).where(where)).first() is None:
        connection.execute(table.insert().values(**key, predictions=predictions, data=data))


def _watch(row: Row[Any]) -> Watch:
    return Watch(
        channel=row.channel,
        release=row.release,
        cursor=row.cursor,
        streak=Streak(row.streak, row.streak_since, row.streak_settled, row.quiet),
        evaluations=row.evaluations,
        evaluated_at=row.evaluated_at,
        report=json.loads(row.report_json),
        baseline=row.baseline,
    )
