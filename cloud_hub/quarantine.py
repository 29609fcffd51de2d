"""What devices sent and the hub could not count: kept for a person to look at, and counted with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, func, select

from cloud_hub.records.database import Database
from cloud_hub.records.tables import quarantine as table
from cloud_hub.records.tables import quarantine_counts

Reason = Literal[
    "malformed",
    "wrong-device",
    "sequence",
    "unknown-release",
    "unknown-channel",
    "window",
    "overlap",
    "reused",
    "epoch-taken",
    "internal",
]
"""Why; each is explained in docs/reference/cloud-hub.md."""

#: Of a payload so much is kept.
KEPT_BYTES = 64 << 10


@dataclass(frozen=True)
class Refusal:
    """One message that was not counted.

    Attributes:
        device: that sent it, by its topic.
        kind: presence, reported or insights.
        reason: a word of `Reason`.
        detail: a sentence for a person.
        received: unix seconds.
        payload: its bytes, at most `KEPT_BYTES`.
    """

    device: str
    kind: str
    reason: str
    detail: str
    received: float
    payload: bytes


class Quarantine:
    """Refused messages.

    Args:
        db: the records.
        rows_each: messages kept for each device, the newest ones.
    """

    def __init__(self, db: Database, *, rows_each: int = 100) -> None:
        self._db, self._rows_each = db, rows_each

    def add(self, connection: Connection, refusals: list[Refusal]) -> None:
        """Keep and count, inside the caller's transaction."""
        for refusal in refusals:
            connection.execute(
                table.insert().values(
                    device=refusal.device,
                    kind=refusal.kind,
                    reason=refusal.reason,
                    detail=refusal.detail[:1000],
                    received=refusal.received,
                    payload=refusal.payload[:KEPT_BYTES],
                )
            )
            self._count(connection, refusal.device, refusal.reason)
        for device in {refusal.device for refusal in refusals}:
            self._trim(connection, device)

    def counts(self) -> dict[str, int]:
        """Reason → number of messages ever refused for it."""
        counts = quarantine_counts.c
        query = select(counts.reason, func.sum(counts.count)).group_by(counts.reason)
        with self._db.read() as connection:
            return {reason: int(count) for reason, count in connection.execute(query)}

    def newest(self, device: str | None = None, limit: int = 100) -> list[Refusal]:
        """The newest messages kept, of all devices or of one."""
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if device is not None:
            query = query.where(table.c.device == device)
        with self._db.read() as connection:
            return [
                Refusal(row.device, row.kind, row.reason, row.detail, row.received, bytes(row.payload))
                for row in connection.execute(query)
            ]

    def _count(self, connection: Connection, device: str, reason: str) -> None:
        counts = quarantine_counts
        mine = (counts.c.device == device) & (counts.c.reason == reason)
        changed = connection.execute(counts.update().where(mine).values(count=counts.c.count + 1))
        if not changed.rowcount:
            connection.execute(counts.insert().values(device=device, reason=reason, count=1))

    def _trim(self, connection: Connection, device: str) -> None:
        mine = select(table.c.id).where(table.c.device == device).order_by(table.c.id.desc())
        oldest_kept = connection.execute(mine.offset(self._rows_each).limit(1)).scalar()
        if oldest_kept is not None:
            connection.execute(table.delete().where((table.c.device == device) & (table.c.id <= oldest_kept)))
