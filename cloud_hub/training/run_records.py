"""The records of training runs, and the life of a run: one transition table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from cloud_hub.records.decision_tables import training_runs as table
from cloud_hub.records.tables import windows
from cloud_hub.training.policy import PastRun

QUEUED, TRAINING, EVALUATING = "queued", "training", "evaluating"
REFUSED, RELEASED, FAILED = "refused", "released", "failed"

#: What a run may become. What is not in the table has ended.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    QUEUED: frozenset({TRAINING, FAILED}),
    TRAINING: frozenset({EVALUATING, FAILED}),
    EVALUATING: frozenset({REFUSED, RELEASED, FAILED}),
}


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        id: a number that grows.
        channel: the channel that it was started for.
        state: queued, training, evaluating; refused, released or failed.
        cause: why it was started.
        reason: why it is in its state, or "".
        interrupted: whether the hub was stopped during it; it may be started again at once.
        parent: digest of the release whose head is replaced.
        alarm: id of the drift alarm that it answers, or None.
        labels: labels that had arrived when it was started.
        created: unix seconds.
        started: unix seconds, or None.
        ended: unix seconds, or None.
        release: digest of the release that came of it, or None.
        rollout: id of the rollout of that release, or None.
        verdict: the gate's, with both figures; empty before.
        candidate: what was fitted, from what; empty before.
    """

    id: int
    channel: str
    state: str
    cause: str
    reason: str
    interrupted: bool
    parent: str
    alarm: int | None
    labels: int
    created: float
    started: float | None
    ended: float | None
    release: str | None
    rollout: str | None
    verdict: Mapping[str, Any]
    candidate: Mapping[str, Any]

    @property
    def past(self) -> PastRun:
        """The run as the trigger rule sees it."""
        return PastRun(self.state, self.created, self.alarm, self.labels, interrupted=self.interrupted)


def insert(
    connection: Connection, *, channel: str, cause: str, parent: str, alarm: int | None, labels: int, now: float
) -> int:
    """Queue a run; returns its id."""
    values = {
        "channel": channel,
        "state": QUEUED,
        "cause": cause,
        "reason": "",
        "interrupted": False,
        "parent": parent,
        "alarm": alarm,
        "labels": labels,
        "created": now,
        "verdict_json": "{}",
        "candidate_json": "{}",
    }
    return int(connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one())


def move(connection: Connection, run_id: int, state: str, **values: Any) -> None:
    """Move a run to its next state.

    Raises:
        ValueError: the table has no such transition; that is a fault of the program.
    """
    present = connection.execute(select(table.c.state).where(table.c.id == run_id)).scalar_one()
    if state not in TRANSITIONS.get(present, ()):
        raise ValueError(f"run {run_id} is {present} and cannot become {state}")
    for name in ("verdict", "candidate"):
        if name in values:
            values[f"{name}_json"] = json.dumps(values.pop(name))
    connection.execute(table.update().where(table.c.id == run_id).values(state=state, **values))


def find(connection: Connection, run_id: int) -> Run | None:
    """The run, or None."""
    row = connection.execute(select(table).where(table.c.id == run_id)).first()
    return None if row is None else _run(row)


def newest(connection: Connection, channel: str | None, limit: int) -> Sequence[Run]:
    """The newest runs, newest first."""
    query = select(table).order_by(table.c.id.desc()).limit(limit)
    if channel is not None:
        query = query.where(table.c.channel == channel)
    return [_run(row) for row in connection.execute(query)]


def in_state(connection: Connection, *states: str) -> Sequence[Run]:
    """Runs in one of the states, oldest first."""
    query = select(table).where(table.c.state.in_(states)).order_by(table.c.id)
    return [_run(row) for row in connection.execute(query)]


def labels_since(connection: Connection, channel: str, releases: Sequence[str], since: float | None) -> int:
    """Labels that have arrived for these releases on a channel, without reading any window."""
    conditions = [windows.c.channel == channel, windows.c.release.in_(releases)]
    if since is not None:
        conditions.append(windows.c.interval_start >= since)
    query = select(func.coalesce(func.sum(windows.c.feedback), 0)).where(*conditions)
    return int(connection.execute(query).scalar_one())


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        channel=row.channel,
        state=row.state,
        cause=row.cause,
        reason=row.reason,
        interrupted=row.interrupted,
        parent=row.parent,
        alarm=row.alarm,
        labels=row.labels,
        created=row.created,
        started=row.started,
        ended=row.ended,
        release=row.release,
        rollout=row.rollout,
        verdict=json.loads(row.verdict_json),
        candidate=json.loads(row.candidate_json),
    )
