"""The records of escalations: what was asked, with which chance it was drawn, and what the answer was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select

from cloud_hub.records.database import Database, chunks
from cloud_hub.records.teaching_tables import escalation_inputs as inputs
from cloud_hub.records.teaching_tables import escalations as table
from edgeloop.protocol import Escalation, TeacherAnswer

ANSWERED, UNANSWERED, ASKED = "answered", "unanswered", "asked"
"""A label is there; nobody could give one; a person was asked."""
#: Rows that are forgotten in one transaction, so that answers wait for the database for a moment only.
FORGOTTEN_AT_ONCE = 500

Key = tuple[str, str, int]
"""Device, id of the prediction, row in its request: what is asked about once."""


@dataclass(frozen=True)
class EscalationRecord:
    """One escalation.

    Attributes:
        device: that asked.
        prediction: id of the prediction.
        row: in its request.
        channel: that the device followed.
        release: digest of the release that answered.
        segment: of the windows, or "".
        form: what travelled.
        probability: chance with which it was drawn.
        audit: whether it was drawn for an audit.
        wait: whether a client waited.
        predicted: class that the device answered.
        confidence: of that answer.
        bytes: of the message.
        received: unix seconds.
        state: ``answered``, ``unanswered``, or ``asked``: it waits for a person.
        answered: unix seconds, or None.
        label: class that the teacher answered, or None.
        sure: confidence of the teacher, or None.
        calibrated: whether that is the share of right answers that have it.
        teacher: who answered, or was asked last.
        ms: milliseconds that the teacher took.
        cost: what all calls for it have cost.
        reason: why there is no label, or "".
        learn: whether the label counts as feedback.
        told: whether the answer was sent to the device.
        claimed_by: the person who looks at it now, or None.
        claimed_until: unix seconds until when it is theirs, or None.
        skips: times that a person has passed it on.
        hardness: of the row, 0…1, as the device saw it, or None: it did not tell.
        number: of the record; 0 before it is written.
    """

    device: str
    prediction: str
    row: int
    channel: str
    release: str
    segment: str
    form: str
    probability: float
    audit: bool
    wait: bool
    predicted: int
    confidence: float
    bytes: int
    received: float
    state: str = UNANSWERED
    answered: float | None = None
    label: int | None = None
    sure: float | None = None
    calibrated: bool = False
    teacher: str = ""
    ms: float = 0.0
    cost: float = 0.0
    reason: str = ""
    learn: bool = True
    told: bool = False
    claimed_by: str | None = None
    claimed_until: float | None = None
    skips: int = 0
    hardness: float | None = None
    number: int = 0

    @classmethod
    def of(cls, escalation: Escalation, size: int, received: float) -> EscalationRecord:
        """The record of a message that has just come."""
        return cls(
            device=escalation.device,
            prediction=escalation.id,
            row=escalation.index,
            channel=escalation.channel,
            release=escalation.release,
            segment=escalation.segment,
            form=escalation.form,
            probability=escalation.probability,
            audit=escalation.audit,
            wait=escalation.wait,
            predicted=escalation.predicted,
            confidence=escalation.confidence,
            bytes=size,
            received=received,
            hardness=escalation.hardness,
        )

    @property
    def key(self) -> Key:
        """What makes it one."""
        return self.device, self.prediction, self.row

    @property
    def answer(self) -> TeacherAnswer:
        """What the device is told."""
        return TeacherAnswer(
            id=self.prediction,
            index=self.row,
            label=self.label,
            confidence=self.sure,
            teacher=self.teacher if self.label is not None else "",
            ms=round(self.ms, 3),
            reason=self.reason,
            learn=self.learn,
            calibrated=self.calibrated,
        )


class EscalationRecords:
    """The escalations of a hub.

    Args:
        db: the records.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def write(
        self, connection: Connection, record: EscalationRecord, message: bytes | None, until: float | None
    ) -> None:
        """Write a record in the caller's transaction; one that is answered already stays as it is.

        Args:
            connection: of the transaction.
            record: the record.
            message: the message's bytes, where they are kept.
            until: unix seconds until when they are kept; None for as long as a person has to see them.
        """
        there = connection.execute(select(table.c.number, table.c.state).where(*_where(record.key))).first()
        if there is not None and there.state == ANSWERED:
            return
        if there is None:
            inserted = connection.execute(table.insert().values(**_values(record)).returning(table.c.number))
            number = int(inserted.scalar_one())
        else:
            number = int(there.number)
            connection.execute(table.update().where(table.c.number == number).values(**_values(record)))
            connection.execute(delete(inputs).where(inputs.c.number == number))
        if message is not None:
            connection.execute(inputs.insert().values(number=number, until=until, data=message))

    def find(self, key: Key) -> EscalationRecord | None:
        """The record of one row of one prediction, or None."""
        return self._first(select(table).where(*_where(key)))

    def get(self, number: int) -> EscalationRecord | None:
        """The record of this number, or None."""
        return self._first(select(table).where(table.c.number == number))

    def newest(
        self,
        channel: str | None = None,
        release: str | None = None,
        state: str | None = None,
        since: float | None = None,
        before: int | None = None,
        limit: int = 200,
    ) -> list[EscalationRecord]:
        """Records, the newest first.

        Args:
            channel: only of this channel.
            release: only of this release.
            state: only in this state.
            since: unix seconds; only what came later.
            before: only numbers below this one: the next page.
            limit: records, at most.
        """
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        for column, value in ((table.c.channel, channel), (table.c.release, release), (table.c.state, state)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(table.c.received >= since)
        if before is not None:
            query = query.where(table.c.number < before)
        with self._db.read() as connection:
            return [record_of(row) for row in connection.execute(query)]

    def labelled(self, channel: str, release: str, since: float, limit: int) -> list[EscalationRecord]:
        """The newest of a release on a channel that have a label and tell how hard they were.

        Args:
            channel: its name.
            release: digest.
            since: unix seconds; only what came later.
            limit: records, at most.
        """
        query = select(table).where(
            *(table.c.channel == channel, table.c.release == release, table.c.state == ANSWERED),
            *(table.c.received > since, table.c.label.is_not(None), table.c.hardness.is_not(None)),
        )
        with self._db.read() as connection:
            return [record_of(row) for row in connection.execute(query.order_by(table.c.number.desc()).limit(limit))]

    def asked_of(self, teacher: str) -> tuple[int, int]:
        """How many items wait for a person, and the bytes of their messages."""
        query = select(func.count(), func.sum(table.c.bytes)).where(table.c.state == ASKED, table.c.teacher == teacher)
        with self._db.read() as connection:
            count, size = connection.execute(query).one()
        return int(count), int(size or 0)

    def left_untold(self, since: float) -> list[str]:
        """Devices that were not sent an answer with a label that was given after ``since``."""
        with self._db.read() as connection:
            return list(connection.execute(select(table.c.device).where(*_untold(since)).distinct()).scalars())

    def untold(self, since: float, device: str, limit: int = 200) -> list[EscalationRecord]:
        """Answers with a label that a device was not sent, given after ``since``, the oldest first."""
        query = select(table).where(*_untold(since), table.c.device == device)
        with self._db.read() as connection:
            return [record_of(row) for row in connection.execute(query.order_by(table.c.number).limit(limit))]

    def tell(self, numbers: Sequence[int]) -> None:
        """Note that devices were sent their answers."""
        with self._db.begin() as connection:
            for some in chunks(numbers):
                connection.execute(table.update().where(table.c.number.in_(some)).values(told=True))

    def keep_input(self, connection: Connection, number: int, until: float | None) -> None:
        """Keep a message until then, in the caller's transaction; None: no longer."""
        mine = inputs.c.number == number
        connection.execute(
            delete(inputs).where(mine) if until is None else inputs.update().where(mine).values(until=until)
        )

    def message(self, number: int) -> Escalation | None:
        """The message as the device sent it, or None where it is not kept."""
        with self._db.read() as connection:
            data = connection.execute(select(inputs.c.data).where(inputs.c.number == number)).scalar()
        return None if data is None else Escalation.from_bytes(bytes(data))

    def counts(self) -> dict[str, int]:
        """State → number of records that are kept."""
        query = select(table.c.state, func.count()).group_by(table.c.state)
        with self._db.read() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def forget(self, now: float, keep_s: float) -> int:
        """Delete what is older than it is kept, a part at a time; returns how many records went."""
        with self._db.read() as connection:
            old = select(table.c.number).where(table.c.received < now - keep_s).limit(FORGOTTEN_AT_ONCE)
            numbers = [row.number for row in connection.execute(old)]
            ended = select(inputs.c.number).where(inputs.c.until < now).limit(FORGOTTEN_AT_ONCE)
            done = [row.number for row in connection.execute(ended)]
        if not numbers and not done:
            return 0
        with self._db.begin() as connection:
            connection.execute(delete(inputs).where(inputs.c.number.in_([*numbers, *done])))
            connection.execute(delete(table).where(table.c.number.in_(numbers)))
        return len(numbers)

    def _first(self, query: Select[Any]) -> EscalationRecord | None:
        with self._db.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else record_of(row)


def record_of(row: Row[Any]) -> EscalationRecord:
    """A row of the table."""
    return EscalationRecord(**row._mapping)


def unanswered(record: EscalationRecord, reason: str) -> EscalationRecord:
    """The record when nobody could answer."""
    return replace(record, state=UNANSWERED, reason=reason[:2000])


def asked_of(record: EscalationRecord, teacher: str) -> EscalationRecord:
    """The record when a person is asked, whom nobody waits for."""
    return replace(record, state=ASKED, teacher=teacher, reason="a person is asked: the answer follows")


def _values(record: EscalationRecord) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name != "number"}


def _untold(since: float) -> tuple[Any, ...]:
    return table.c.told.is_(False), table.c.state == ANSWERED, table.c.answered >= since


def _where(key: Key) -> tuple[Any, ...]:
    device, prediction, row = key
    return table.c.device == device, table.c.prediction == prediction, table.c.row == row
