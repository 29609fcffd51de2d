"""The records of training runs, and the life of a run: one transition table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from cloud_hub.records.decision_tables import training_runs as table
from cloud_hub.training.policy import PastRun

QUEUED, TRAINING, EVALUATING = "queued", "training", "evaluating"
REFUSED, RELEASED, FAILED, CANCELLED = "refused", "released", "failed", "cancelled"

#: What a run may become. What is not in the table has ended. An interrupted run that its trainer can go on with is
#: queued again; one whose data has already led to a refusal is refused before it is trained.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    QUEUED: frozenset({TRAINING, FAILED, CANCELLED}),
    TRAINING: frozenset({EVALUATING, REFUSED, FAILED, CANCELLED, QUEUED}),
    EVALUATING: frozenset({REFUSED, RELEASED, FAILED, CANCELLED, QUEUED}),
}


class Ended(Exception):
    """The run has ended meanwhile: somebody has cancelled it."""


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        id: a number that grows.
        channel: the channel that it was started for.
        state: queued, training, evaluating; refused, released, failed or cancelled.
        cause: why it was started.
        trigger: of the policy's, or "" for one that was started by hand.
        reason: why it is in its state, or "".
        interrupted: whether the hub was stopped during it; it may be started again at once.
        parent: digest of the release that is retrained.
        alarm: id of the drift alarm that it answers, or None.
        labels: labels that had arrived when it was started.
        recipe: how it is made and judged: see ``cloud_hub.training.policy.recipe_of``.
        data: SHA-256 of what it was trained on, 64 hex digits, or "" before that is known.
        attempts: times that it was begun; more than one where it went on after the hub had been stopped.
        created: unix seconds.
        started: unix seconds of the first attempt, or None.
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
    trigger: str
    reason: str
    interrupted: bool
    parent: str
    alarm: int | None
    labels: int
    recipe: str
    data: str
    attempts: int
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
        return PastRun(self.state, self.created, self.alarm, self.labels, self.interrupted, self.recipe)

    @property
    def ended_already(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state not in TRANSITIONS


def insert(
    connection: Connection,
    *,
    channel: str,
    cause: str,
    trigger: str,
    parent: str,
    alarm: int | None,
    labels: int,
    recipe: str,
    now: float,
) -> int:
    """Queue a run; returns its id."""
    values = {
        "channel": channel,
        "state": QUEUED,
        "cause": cause,
        "trigger": trigger,
        "reason": "",
        "interrupted": False,
        "parent": parent,
        "alarm": alarm,
        "labels": labels,
        "recipe": recipe,
        "data": "",
        "attempts": 0,
        "created": now,
        "verdict_json": "{}",
        "candidate_json": "{}",
    }
    return int(connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one())


def move(connection: Connection, run_id: int, state: str, **values: Any) -> None:
    """Move a run to its next state.

    Raises:
        Ended: it has ended already.
        ValueError: the table has no such transition; that is a fault of the program.
    """
    present = connection.execute(select(table.c.state).where(table.c.id == run_id)).scalar_one()
    if present not in TRANSITIONS:
        raise Ended(f"run {run_id} is {present} already")
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


def note_data(connection: Connection, run_id: int, sha256: str) -> None:
    """Note what a run is trained on."""
    connection.execute(table.update().where(table.c.id == run_id).values(data=sha256))


def refused_alike(connection: Connection, recipe: str, data: str) -> Run | None:
    """The newest run that was made in the same way of the same data, and was refused."""
    alike = (table.c.recipe == recipe, table.c.data == data, table.c.state == REFUSED)
    row = connection.execute(select(table).where(*alike).order_by(table.c.id.desc()).limit(1)).first()
    return None if row is None else _run(row)


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        channel=row.channel,
        state=row.state,
        cause=row.cause,
        trigger=row.trigger,
        reason=row.reason,
        interrupted=row.interrupted,
        parent=row.parent,
        alarm=row.alarm,
        labels=row.labels,
        recipe=row.recipe,
        data=row.data,
        attempts=row.attempts,
        created=row.created,
        started=row.started,
        ended=row.ended,
        release=row.release,
        rollout=row.rollout,
        verdict=json.loads(row.verdict_json),
        candidate=json.loads(row.candidate_json),
    )
