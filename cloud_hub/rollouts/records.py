"""The records of rollouts: one row each, and the history of every decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from cloud_hub.policy import RolloutPolicy
from cloud_hub.records.decision_tables import rollout_history, rollouts
from cloud_hub.rollouts.rules import Progress, Requests, RolloutState

RUNNING, FINISHED, ABORTED = "running", "finished", "aborted"


@dataclass(frozen=True)
class HistoryEntry:
    """One decision: when, what (start, widen, wait, finish, abort), at which step and fraction, and why."""

    at: float
    decision: str
    step: int
    fraction: float
    reason: str


@dataclass(frozen=True)
class Rollout:
    """A rollout.

    Attributes:
        id: names it; with a device's name it places the device.
        channel: the channel.
        candidate: digest of the release that is rolled out.
        current: digest of the release that was current when it began; devices go back to it. "" where the channel had
            none: such a rollout waits for approvals, and then the release is current at once.
        state: ``running``, ``finished`` or ``aborted``.
        step: index of the present step, -1 before the first.
        fraction: devices placed below it take the candidate.
        started: unix seconds.
        step_started: unix seconds when the step began, or when it last stopped being done.
        done_since: unix seconds since which the step has been done without a break, or None.
        ended: unix seconds, or None.
        reason: the latest decision's.
        cause: why it was started.
        started_by: who started it, as the audit log names them; "" for one that is older than the log.
        policy: steps and limits as they were when it began.
        baseline: requests of candidate and current release before it began.
        progress: where the selected devices stood at the latest decision.
    """

    id: str
    channel: str
    candidate: str
    current: str
    state: str
    step: int
    fraction: float
    started: float
    step_started: float
    done_since: float | None
    ended: float | None
    reason: str
    cause: str
    policy: RolloutPolicy
    baseline: Mapping[str, Requests]
    progress: Progress
    started_by: str = ""

    @property
    def for_rules(self) -> RolloutState:
        """What the rules need of it."""
        return RolloutState(
            self.id, self.candidate, self.step, self.fraction, self.step_started, done_since=self.done_since
        )


def insert(connection: Connection, rollout: Rollout, number: int) -> None:
    """Write a new rollout's row."""
    connection.execute(
        rollouts.insert().values(
            id=rollout.id,
            number=number,
            channel=rollout.channel,
            candidate=rollout.candidate,
            current=rollout.current,
            state=rollout.state,
            step=rollout.step,
            fraction=rollout.fraction,
            started=rollout.started,
            step_started=rollout.step_started,
            done_since=rollout.done_since,
            ended=rollout.ended,
            reason=rollout.reason,
            cause=rollout.cause,
            policy_json=rollout.policy.model_dump_json(),
            baseline_json=json.dumps({name: [r.predictions, r.errors] for name, r in rollout.baseline.items()}),
            progress_json=json.dumps(vars(rollout.progress)),
            started_by=rollout.started_by,
        )
    )


def next_number(connection: Connection) -> int:
    """The number of the next rollout, counted from 1."""
    return int(connection.execute(select(func.coalesce(func.max(rollouts.c.number), 0))).scalar_one()) + 1


def update(connection: Connection, rollout_id: str, *, progress: Progress | None = None, **values: Any) -> None:
    """Change columns of a rollout."""
    if progress is not None:
        values["progress_json"] = json.dumps(vars(progress))
    connection.execute(rollouts.update().where(rollouts.c.id == rollout_id).values(**values))


def find(connection: Connection, rollout_id: str) -> Rollout | None:
    """The rollout, or None."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == rollout_id)).first()
    return None if row is None else _rollout(row)


def running(connection: Connection, channel: str | None = None) -> list[Rollout]:
    """Rollouts under way, oldest first; at most one a channel."""
    query = select(rollouts).where(rollouts.c.state == RUNNING).order_by(rollouts.c.number)
    if channel is not None:
        query = query.where(rollouts.c.channel == channel)
    return [_rollout(row) for row in connection.execute(query)]


def newest(connection: Connection, channel: str | None, limit: int) -> list[Rollout]:
    """The newest rollouts, newest first."""
    query = select(rollouts).order_by(rollouts.c.number.desc()).limit(limit)
    if channel is not None:
        query = query.where(rollouts.c.channel == channel)
    return [_rollout(row) for row in connection.execute(query)]


def of_release(connection: Connection, digest: str) -> list[Rollout]:
    """Rollouts of a release, oldest first."""
    query = select(rollouts).where(rollouts.c.candidate == digest).order_by(rollouts.c.number)
    return [_rollout(row) for row in connection.execute(query)]


def write_history(connection: Connection, rollout_id: str, entry: HistoryEntry) -> None:
    """Add an entry to a rollout's history."""
    connection.execute(rollout_history.insert().values(rollout=rollout_id, **vars(entry)))


def history(connection: Connection, rollout_id: str) -> Sequence[HistoryEntry]:
    """Every entry, oldest first."""
    table = rollout_history
    query = select(table).where(table.c.rollout == rollout_id).order_by(table.c.id)
    return [HistoryEntry(row.at, row.decision, row.step, row.fraction, row.reason) for row in connection.execute(query)]


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        channel=row.channel,
        candidate=row.candidate,
        current=row.current,
        state=row.state,
        step=row.step,
        fraction=row.fraction,
        started=row.started,
        step_started=row.step_started,
        done_since=row.done_since,
        ended=row.ended,
        reason=row.reason,
        cause=row.cause,
        policy=RolloutPolicy.model_validate_json(row.policy_json),
        baseline={name: Requests(*pair) for name, pair in json.loads(row.baseline_json).items()},
        progress=Progress(**json.loads(row.progress_json)),
        started_by=row.started_by or "",
    )
