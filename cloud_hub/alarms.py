"""Drift alarms: what moved, where, since when, how certain. At most one is open for a release on a channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, select

from cloud_hub.access import audit
from cloud_hub.errors import Conflict, NotFound
from cloud_hub.records.database import Database
from cloud_hub.records.decision_tables import drift_alarms as table

OPEN, CLOSED = "open", "closed"
#: Where it moved: in the fleet as a whole, or in some devices or segments while the fleet has hardly moved.
FLEET, DEVICES, SEGMENTS = "fleet", "devices", "segments"
#: What is told of an alarm.
RAISED, CHANGED, ACKNOWLEDGED, ENDED = "alarm.raised", "alarm.changed", "alarm.acknowledged", "alarm.closed"
#: Names of devices or segments that an alarm holds, at most: enough to go and look.
MOST_NAMES = 200


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
        aspects: the aspects that had moved in the latest window: against, name, effect, direction, moved, …
        scope: ``fleet``, ``devices`` or ``segments``.
        devices: names of the devices that carry the drift.
        segments: values of the segment field that carry it.
        p_value: how often chance alone would show as much in one comparison.
        suggestion: what to look at first.
        acknowledged: unix seconds when a person took note of it, or None.
        acknowledged_by: who, and what they said, or "".
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
    scope: str
    devices: Sequence[str]
    segments: Sequence[str]
    p_value: float
    suggestion: str
    acknowledged: float | None
    acknowledged_by: str

    @property
    def certainty(self) -> float:
        """The probability with which chance alone shows less, 0…1."""
        return 1.0 - self.p_value


@dataclass(frozen=True)
class Evidence:
    """What the latest comparisons say; fields as in `Alarm`."""

    aspects: Sequence[Mapping[str, Any]]
    scope: str = FLEET
    devices: Sequence[str] = ()
    segments: Sequence[str] = ()
    p_value: float = 1.0
    suggestion: str = ""

    @property
    def effect(self) -> float:
        """The largest of its aspects' effects."""
        return max((float(aspect["effect"]) for aspect in self.aspects), default=0.0)

    def columns(self) -> dict[str, Any]:
        """As the table holds it."""
        return {
            "aspects_json": json.dumps(list(self.aspects)),
            "scope": self.scope,
            "devices_json": json.dumps(list(self.devices[:MOST_NAMES])),
            "segments_json": json.dumps(list(self.segments[:MOST_NAMES])),
            "suggestion": self.suggestion,
            "summary": summarise(self),
        }


class Alarms:
    """The alarms of a hub.

    Args:
        db: the records.
        tell: called with an event and the alarm in each transaction that changes one.
    """

    def __init__(
        self, db: Database, tell: Callable[[Connection, str, Alarm], None] = lambda connection, event, alarm: None
    ) -> None:
        self._db, self._tell = db, tell

    def get(self, alarm_id: int) -> Alarm:
        """The alarm; raises `NotFound`."""
        with self._db.read() as connection:
            return self._read(connection, alarm_id)

    def open_on(self, channel: str, release: str | None = None, scope: str | None = None) -> list[Alarm]:
        """Open alarms of a channel, or of one release on it, or of one scope, oldest first."""
        conditions = [table.c.channel == channel, table.c.state == OPEN]
        if release is not None:
            conditions.append(table.c.release == release)
        if scope is not None:
            conditions.append(table.c.scope == scope)
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

    def open_by_scope(self) -> dict[str, int]:
        """Number of open alarms of each scope."""
        counts = dict.fromkeys((FLEET, DEVICES, SEGMENTS), 0)
        query = select(table.c.scope, func.count().label("number")).where(table.c.state == OPEN)
        with self._db.read() as connection:
            return counts | {row.scope: row.number for row in connection.execute(query.group_by(table.c.scope))}

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
        evidence: Evidence,
    ) -> Alarm:
        """Write an alarm, inside the caller's transaction."""
        values = {
            "channel": channel,
            "release": release,
            "state": OPEN,
            "since": since,
            "settled": settled,
            "raised": now,
            "seen": seen,
            "closed_reason": "",
            "effect": evidence.effect,
            "p_value": evidence.p_value,
            "acknowledged_by": "",
            **evidence.columns(),
        }
        alarm_id = connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one()
        return self._told(connection, RAISED, int(alarm_id))

    def note(self, connection: Connection, alarm: Alarm, *, seen: float, evidence: Evidence) -> None:
        """Note another window that had moved, inside the caller's transaction.

        Where it is, is as it is seen now; of some devices or segments, those that carried it before stay named.
        """
        devices, segments = sorted(evidence.devices), sorted(evidence.segments)
        if evidence.scope != FLEET:
            devices = sorted({*alarm.devices, *devices})
            segments = sorted({*alarm.segments, *segments})
        told = replace(evidence, devices=devices[:MOST_NAMES], segments=segments[:MOST_NAMES])
        values = {
            **told.columns(),
            "seen": seen,
            "effect": max(alarm.effect, evidence.effect),
            "p_value": min(alarm.p_value, evidence.p_value),
        }
        before = (alarm.scope, list(alarm.devices), list(alarm.segments))
        changed = before != (told.scope, told.devices, told.segments)
        if not changed:
            del values["summary"]  # it says what raised the alarm
        connection.execute(table.update().where(table.c.id == alarm.id).values(**values))
        if changed:
            self._told(connection, CHANGED, alarm.id)

    def close(self, connection: Connection, alarm: Alarm, reason: str, now: float) -> None:
        """Close an alarm, inside the caller's transaction."""
        values = {"state": CLOSED, "closed": now, "closed_reason": reason}
        changed = connection.execute(
            table.update().where(table.c.id == alarm.id, table.c.state == OPEN).values(**values)
        )
        if changed.rowcount:
            self._told(connection, ENDED, alarm.id)

    def acknowledge(self, alarm_id: int, by: str, now: float) -> Alarm:
        """A person has taken note of an alarm: it stays open until the drift is gone.

        Raises:
            NotFound: there is no such alarm.
            Conflict: somebody has acknowledged it already.
        """
        with self._db.begin() as connection:
            alarm = self._read(connection, alarm_id)
            if alarm.acknowledged is not None:
                raise Conflict(f"alarm {alarm_id} was acknowledged already, by {alarm.acknowledged_by or 'somebody'}")
            values = {"acknowledged": now, "acknowledged_by": by}
            connection.execute(table.update().where(table.c.id == alarm_id).values(**values))
            audit.changed(connection, "alarm.acknowledge", None, {"by": by}, about=str(alarm_id), at=now)
            return self._told(connection, ACKNOWLEDGED, alarm_id)

    def _told(self, connection: Connection, event: str, alarm_id: int) -> Alarm:
        alarm = self._read(connection, alarm_id)
        self._tell(connection, event, alarm)
        return alarm

    def _read(self, connection: Connection, alarm_id: int) -> Alarm:
        if (alarm := find(connection, alarm_id)) is None:
            raise NotFound(f"there is no alarm {alarm_id}", "GET /api/v1/alarms lists them")
        return alarm


def find(connection: Connection, alarm_id: int) -> Alarm | None:
    """The alarm, or None."""
    row = connection.execute(select(table).where(table.c.id == alarm_id)).first()
    return None if row is None else _alarm(row)


def summarise(evidence: Evidence) -> str:
    """One sentence: who, and what moved most."""
    strongest = sorted(evidence.aspects, key=lambda aspect: -float(aspect["effect"]))
    told = [f"{aspect['moved']} (against {aspect['against']})" for aspect in strongest[:3]]
    rest = len(strongest) - len(told)
    what = "; ".join(told) + (f"; and {rest} more" if rest > 0 else "")
    names = {DEVICES: evidence.devices, SEGMENTS: evidence.segments}.get(evidence.scope, ())
    if not names:
        return what
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{evidence.scope} {', '.join(names[:5])}{more}: {what}"


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
        scope=row.scope,
        devices=json.loads(row.devices_json),
        segments=json.loads(row.segments_json),
        p_value=row.p_value,
        suggestion=row.suggestion,
        acknowledged=row.acknowledged,
        acknowledged_by=row.acknowledged_by,
    )
