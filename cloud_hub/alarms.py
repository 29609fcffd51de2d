"""Drift alarms: what moved, since when, how much. At most one is open for a release on a channel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from cloud_hub.errors import NotFound
from cloud_hub.records.database import Database
from cloud_hub.records.decision_tables import drift_alarms as table

OPEN, CLOSED = "open", "closed"


@dataclass(frozen=True)
class Alarm:
    """A drift that was seen in several windows in a row.

    Attributes:
        id: a number that grows.
        channel: the channel.
        release: digest of the release whose windows moved.
        state: ``open`` or ``closed``.
        since: unix seconds, start of the first window that had moved.
        settled: unix seconds, end of that window; what came later was surely made in the new world.
        raised: unix seconds when the alarm was raised.
        seen: unix seconds, end of the latest window that had moved.
        closed: unix seconds, or None.
        closed_reason: why it was closed, or "".
        summary: one sentence for a person.
        effect: largest share of the mass that any aspect has moved by so far, in 0…1.
        aspects: the aspects that had moved in the latest window: against, name, effect, moved, …
    """

    id: int
    channel: str
    release: str
    state: str
    since: float
    settled: float
    raised: float
    seen: float
    closed: float | None
    closed_reason: str
    summary: str
    effect: float
    aspects: Sequence[Mapping[str, Any]]


class Alarms:
    """The alarms of a hub.

    Args:
        db: the records.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, alarm_id: int) -> Alarm:
        """The alarm; raises `NotFound`."""
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.id == alarm_id)).first()
        if row is None:
            raise NotFound(f"there is no alarm {alarm_id}", "GET /api/v1/drift/alarms lists them")
        return _alarm(row)

    def open_on(self, channel: str, release: str | None = None) -> list[Alarm]:
        """Open alarms of a channel, or of one release on it, oldest first."""
        conditions = [table.c.channel == channel, table.c.state == OPEN]
        if release is not None:
            conditions.append(table.c.release == release)
        with self._db.read() as connection:
            return [_alarm(row) for row in connection.execute(select(table).where(*conditions).order_by(table.c.id))]

    def newest(self, channel: str | None = None, state: str | None = None, limit: int = 200) -> Sequence[Alarm]:
        """The newest alarms, newest first."""
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if channel is not None:
            query = query.where(table.c.channel == channel)
        if state is not None:
            query = query.where(table.c.state == state)
        with self._db.read() as connection:
            return [_alarm(row) for row in connection.execute(query)]

    def periods(self, channel: str, release: str) -> Sequence[tuple[float, float | None]]:
        """(since, closed or None) of every alarm of a release on a channel: what is no reference for normal."""
        query = select(table.c.since, table.c.closed).where(table.c.channel == channel, table.c.release == release)
        with self._db.read() as connection:
            return [(row.since, row.closed) for row in connection.execute(query)]

    def raise_alarm(
        self,
        connection: Connection,
        channel: str,
        release: str,
        *,
        since: float,
        settled: float,
        seen: float,
        now: float,
        aspects: Sequence[Mapping[str, Any]],
    ) -> int:
        """Write an alarm, inside the caller's transaction; returns its id."""
        values = {
            "channel": channel,
            "release": release,
            "state": OPEN,
            "since": since,
            "settled": settled,
            "raised": now,
            "seen": seen,
            "closed_reason": "",
            "summary": summarise(aspects),
            "effect": _largest(aspects),
            "aspects_json": json.dumps(list(aspects)),
        }
        return int(connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one())

    def note(self, connection: Connection, alarm: Alarm, *, seen: float, aspects: Sequence[Mapping[str, Any]]) -> None:
        """Note another window that had moved, inside the caller's transaction."""
        values = {
            "seen": seen,
            "effect": max(alarm.effect, _largest(aspects)),
            "aspects_json": json.dumps(list(aspects)),
        }
        connection.execute(table.update().where(table.c.id == alarm.id).values(**values))

    def close(self, connection: Connection, alarm: Alarm, reason: str, now: float) -> None:
        """Close an alarm, inside the caller's transaction."""
        values = {"state": CLOSED, "closed": now, "closed_reason": reason}
        connection.execute(table.update().where(table.c.id == alarm.id, table.c.state == OPEN).values(**values))


def summarise(aspects: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: what moved most."""
    strongest = sorted(aspects, key=lambda aspect: -float(aspect["effect"]))
    told = [f"{aspect['moved']} (against {aspect['against']})" for aspect in strongest[:3]]
    rest = len(strongest) - len(told)
    return "; ".join(told) + (f"; and {rest} more" if rest > 0 else "")


def _largest(aspects: Sequence[Mapping[str, Any]]) -> float:
    return max((float(aspect["effect"]) for aspect in aspects), default=0.0)


def _alarm(row: Row[Any]) -> Alarm:
    return Alarm(
        id=row.id,
        channel=row.channel,
        release=row.release,
        state=row.state,
        since=row.since,
        settled=row.settled,
        raised=row.raised,
        seen=row.seen,
        closed=row.closed,
        closed_reason=row.closed_reason,
        summary=row.summary,
        effect=row.effect,
        aspects=json.loads(row.aspects_json),
    )
