"""The records of trials."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from cloud_hub.records.trial_tables import trials as table

#: It waits for another one of its device; the device is asked.
QUEUED, ASKED = "queued", "asked"
DONE, REFUSED, EXPIRED, CANCELLED = "done", "refused", "expired", "cancelled"
OPEN = (QUEUED, ASKED)
#: Trials that are remembered after their end.
MOST_ENDED = 1000


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        id: of the trial.
        device: that is asked.
        model: the package's name.
        digest: of the package's index.
        state: queued, asked; done, refused (by the device), expired, cancelled.
        reason: why, as a sentence; while it is asked what the device says last.
        asked_by: who asked, as the audit log names them.
        created: unix seconds.
        expires: unix seconds at which nobody waits any more.
        ended: unix seconds, or None.
        request: the `TrialRequest`, plain.
        report: the device's latest `TrialReport`, plain, or empty.
    """

    id: str
    device: str
    model: str
    digest: str
    state: str
    reason: str
    asked_by: str
    created: float
    expires: float
    ended: float | None
    request: Mapping[str, Any]
    report: Mapping[str, Any]


def find(connection: Connection, trial: str) -> Trial | None:
    """The trial with this id, or None."""
    row = connection.execute(select(table).where(table.c.id == trial)).first()
    return None if row is None else _trial(row)


def newest(connection: Connection, device: str | None, limit: int) -> list[Trial]:
    """Trials, the newest first."""
    query = select(table).order_by(table.c.number.desc()).limit(limit)
    if device is not None:
        query = query.where(table.c.device == device)
    return [_trial(row) for row in connection.execute(query)]


def open_ones(connection: Connection) -> list[Trial]:
    """Trials that wait or are under way, the oldest first."""
    query = select(table).where(table.c.state.in_(OPEN)).order_by(table.c.number)
    return [_trial(row) for row in connection.execute(query)]


def count_open(connection: Connection, device: str) -> tuple[int, int]:
    """Open trials of all devices, and of one."""
    query = select(func.count()).select_from(table).where(table.c.state.in_(OPEN))
    everyone = connection.execute(query).scalar_one()
    return int(everyone), int(connection.execute(query.where(table.c.device == device)).scalar_one())


def add(connection: Connection, trial: Trial) -> None:
    """Write a new one, and forget the oldest that have ended."""
    connection.execute(
        table.insert().values(
            id=trial.id,
            device=trial.device,
            model=trial.model,
            digest=trial.digest,
            state=trial.state,
            reason=trial.reason,
            asked_by=trial.asked_by,
            created=trial.created,
            expires=trial.expires,
            ended=None,
            request_json=json.dumps(trial.request),
            report_json="{}",
            files_dropped=False,
        )
    )
    ended = select(table.c.number).where(table.c.state.not_in(OPEN), table.c.files_dropped)
    old = connection.execute(ended.order_by(table.c.number.desc()).offset(MOST_ENDED)).scalars().all()
    if old:
        connection.execute(delete(table).where(table.c.number.in_(old)))


def change(connection: Connection, trial: str, **values: Any) -> None:
    """Write some columns of one; ``report`` is plain."""
    if "report" in values:
        values["report_json"] = json.dumps(values.pop("report"))
    connection.execute(table.update().where(table.c.id == trial).values(**values))


def with_files(connection: Connection, ended_before: float) -> tuple[Sequence[str], Collection[str]]:
    """Ids of trials that ended before then and whose files are still here, and digests that other ones need."""
    over = table.c.ended.is_not(None) & (table.c.ended < ended_before)
    due = connection.execute(select(table.c.id).where(~table.c.files_dropped, over).limit(100)).scalars().all()
    needed = connection.execute(select(table.c.digest).where(~table.c.files_dropped, ~over)).scalars().all()
    return due, set(needed)


def _trial(row: Row[Any]) -> Trial:
    return Trial(
        id=row.id,
        device=row.device,
        model=row.model,
        digest=row.digest,
        state=row.state,
        reason=row.reason,
        asked_by=row.asked_by,
        created=row.created,
        expires=row.expires,
        ended=row.ended,
        request=json.loads(row.request_json),
        report=json.loads(row.report_json),
    )
