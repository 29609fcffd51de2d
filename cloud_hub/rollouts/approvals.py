"""Four eyes: who agreed to a rollout, and who may.

Whoever published the release or started the rollout cannot agree to it, and nobody agrees twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from cloud_hub.errors import Conflict, Forbidden
from cloud_hub.records.access_tables import approvals as table
from cloud_hub.rollouts.records import RUNNING, Rollout


@dataclass(frozen=True)
class Approval:
    """Somebody agreed.

    Attributes:
        who: as the audit log names them.
        at: unix seconds.
        reason: what they said.
    """

    who: str
    at: float
    reason: str


def given(connection: Connection, rollout_id: str) -> Sequence[Approval]:
    """Those of a rollout, the oldest first."""
    query = select(table).where(table.c.rollout == rollout_id).order_by(table.c.at, table.c.who)
    return [Approval(row.who, row.at, row.reason) for row in connection.execute(query)]


def add(connection: Connection, rollout_id: str, approval: Approval) -> None:
    """Write one down."""
    connection.execute(table.insert().values(rollout=rollout_id, **vars(approval)))


def check(rollout: Rollout, published_by: str, who: str, before: Sequence[Approval]) -> None:
    """Whether somebody may agree to a rollout now.

    Args:
        rollout: the rollout.
        published_by: who published its release.
        who: who wants to agree.
        before: who agreed already.

    Raises:
        Conflict: nobody's agreement is waited for, or theirs is there already.
        Forbidden: it is their own release or rollout.
    """
    if rollout.state != RUNNING:
        raise Conflict(f"the rollout {rollout.id} is {rollout.state} already", "there is nothing left to approve")
    if missing(rollout, before) <= 0:
        raise Conflict(f"the rollout {rollout.id} waits for nobody's approval", "it goes on by itself")
    if who in (rollout.started_by, published_by):
        did = "started this rollout" if who == rollout.started_by else "published this release"
        raise Forbidden(f"you ({who}) {did}", "somebody else has to approve it")
    if any(approval.who == who for approval in before):
        raise Conflict(f"you ({who}) approved it already", "somebody else has to approve it, too")


def missing(rollout: Rollout, before: Sequence[Approval]) -> int:
    """Approvals that a rollout still waits for; 0 or less once it has begun."""
    return 0 if rollout.step >= 0 else rollout.policy.approvals - len(before)
