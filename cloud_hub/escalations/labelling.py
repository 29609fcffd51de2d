"""The labelling queue: people as teachers. They take an item, so that two do not look at the same, and say what it is.

An item is an escalation in the state ``asked``. Their answers reach the device as those of any teacher do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.channels import Channels
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.escalations.records import ANSWERED, ASKED, EscalationRecord, EscalationRecords, record_of, unanswered
from cloud_hub.records.database import Database
from cloud_hub.records.teaching_tables import escalations as table
from cloud_hub.releases import Releases
from cloud_hub.teachers.port import Question
from cloud_hub.teachers.specs import PersonSpec
from cloud_hub.teachers.staff import Staff

#: How long an item is somebody's where its teacher is gone, seconds.
CLAIM_S = 900.0
#: People who pass an item on, before nobody is asked any more.
MOST_SKIPS = 3
#: Bytes of messages that are shown in one answer.
MOST_SHOWN_BYTES = 32 << 20
#: Items that are given up in one transaction.
_AT_ONCE = 200


class Labelling:
    """The queue.

    Args:
        db: the records.
        records: of escalations.
        staff: how long items wait, and are somebody's.
        channels: whether inputs are kept afterwards.
        releases: whose classes are meant.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        records: EscalationRecords,
        staff: Staff,
        channels: Channels,
        releases: Releases,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._records, self._staff, self._channels = db, records, staff, channels
        self._releases, self._clock = releases, clock

    def waiting(
        self, channel: str | None = None, teacher: str | None = None, limit: int = 100
    ) -> list[EscalationRecord]:
        """Items, those that fewest have passed on first, and then the oldest."""
        query = select(table).where(*_asked(channel, teacher)).order_by(table.c.skips, table.c.number).limit(limit)
        with self._db.read() as connection:
            return [record_of(row) for row in connection.execute(query)]

    def get(self, item: int) -> EscalationRecord:
        """An item that waits for a person; raises `NotFound`."""
        found = self._records.get(item)
        if found is None or found.state != ASKED:
            raise NotFound(f"no item {item} waits for a person", "GET /api/v1/labelling lists them")
        return found

    def question(self, item: EscalationRecord) -> Question:
        """What a person has to look at; raises `NotFound` where it is gone."""
        message = self._records.message(item.number)
        if message is None:
            raise NotFound(f"the input of item {item.number} is not there any more", "skip it")
        labels, classes = self._releases.classes(item.release)
        rows = {name: tensor.row() for name, tensor in message.tensors.items()}
        return Question(rows, labels, classes, item.form, item.channel)

    def picture(self, item: EscalationRecord) -> tuple[int, ...]:
        """Shape of the picture that an input is which travels as a line of numbers; () where nobody has said."""
        return self._spec(item).picture

    def claim(self, count: int, channel: str | None = None, teacher: str | None = None) -> list[EscalationRecord]:
        """Take items for some minutes: those that are already the caller's first, then ones that are nobody's.

        Args:
            count: how many.
            channel: only of this channel.
            teacher: only those that this teacher was asked.
        """
        now, me = self._clock(), str(acting())
        free = or_(table.c.claimed_by.is_(None), table.c.claimed_until < now, table.c.claimed_by == me)
        mine_first = (table.c.claimed_by == me).desc()
        query = select(table).where(free, *_asked(channel, teacher))
        query = query.order_by(mine_first, table.c.skips, table.c.number).limit(count)
        with self._db.begin() as connection:
            found = at_once([record_of(row) for row in connection.execute(query)])
            taken = [replace(record, claimed_by=me, claimed_until=now + self._spec(record).claim_s) for record in found]
            for record in taken:
                _set(connection, record, claimed_by=record.claimed_by, claimed_until=record.claimed_until)
        return taken

    def release(self, item: int) -> EscalationRecord:
        """Give an item back that is the caller's; raises `NotFound` or `Conflict`."""
        with self._db.begin() as connection:
            record = self._mine(item)
            _set(connection, record, claimed_by=None, claimed_until=None)
        return replace(record, claimed_by=None, claimed_until=None)

    def label(self, item: int, label: int | str) -> EscalationRecord:
        """Say what an item is; its device is told.

        Args:
            item: its number.
            label: the class's index or name.

        Raises:
            NotFound: it waits for nobody.
            Conflict: it is somebody else's now.
            BadRequest: it is no class of the release that asks.
        """
        with self._db.begin() as connection:
            record = self._mine(item)
            index = self._index(record, label)
            self._answer(connection, record, index)
        return self._answered(item)

    def skip(self, item: int, reason: str = "") -> EscalationRecord:
        """Pass an item on to somebody else; after `MOST_SKIPS` nobody is asked any more. Errors as in `release`."""
        with self._db.begin() as connection:
            record = self._mine(item)
            skips = record.skips + 1
            _set(connection, record, claimed_by=None, claimed_until=None, skips=skips)
            about = {"skips": skips, "reason": reason[:200]}
            audit.changed(connection, "labelling.skip", None, about, about=str(item), at=self._clock())
            if skips >= MOST_SKIPS:
                self._give_up(connection, record, f"{record.teacher}: nobody could tell: {reason}".rstrip(": "))
        return self._answered(item)

    def expire(self) -> int:
        """Give up items that have waited for as long as they may; returns how many."""
        now, given_up = self._clock(), 0
        for row in self._staff.all():
            if isinstance(row.spec, PersonSpec):
                old = [*_asked(None, row.name), table.c.received < now - row.spec.hold_s]
                given_up += self._expire(old, f"{row.name}: nobody labelled it in time")
        people = [row.name for row in self._staff.all() if isinstance(row.spec, PersonSpec)]
        gone = [*_asked(None, None), table.c.teacher.not_in(people)]
        return given_up + self._expire(gone, "the people who were asked were taken away")

    def _expire(self, which: Sequence[ColumnElement[bool]], reason: str) -> int:
        query = select(table).where(and_(*which)).limit(_AT_ONCE)
        with self._db.read() as connection:
            old = [record_of(row) for row in connection.execute(query)]
        if old:
            with self._db.begin() as connection:
                for record in old:
                    self._give_up(connection, record, reason)
        return len(old)

    def _mine(self, item: int) -> EscalationRecord:
        record, now = self.get(item), self._clock()
        claimed = record.claimed_by is not None and (record.claimed_until or 0.0) >= now
        if claimed and record.claimed_by != str(acting()):
            raise Conflict(f"item {item} is somebody else's now", "claim another one")
        return record

    def _index(self, record: EscalationRecord, label: int | str) -> int:
        labels, classes = self._releases.classes(record.release)
        if isinstance(label, int):
            index = label if 0 <= label < classes else None
        else:
            index = Question({}, labels, classes, record.form, record.channel).index_of(label)
        if index is None:
            known = ", ".join(labels)[:500] or f"0 to {classes - 1}"
            raise BadRequest(f"{label!r:.80} is no class of the release", f"there are {known}")
        return index

    def _answer(self, connection: Connection, record: EscalationRecord, label: int) -> None:
        now = self._clock()
        ms = 1e3 * max(0.0, now - record.received)
        _set(connection, record, state=ANSWERED, label=label, answered=now, reason="", ms=ms, told=False,
             claimed_by=str(acting()), claimed_until=None)  # fmt: skip
        self._let_go(connection, record)
        audit.changed(connection, "labelling.label", None, {"label": label}, about=str(record.number), at=now)

    def _give_up(self, connection: Connection, record: EscalationRecord, reason: str) -> None:
        given_up = unanswered(record, reason)
        _set(connection, record, state=given_up.state, reason=given_up.reason, answered=self._clock(), told=False)
        self._let_go(connection, record)

    def _let_go(self, connection: Connection, record: EscalationRecord) -> None:
        """The input is kept on only as long as the channel's policy says."""
        channel = self._channels.find(record.channel)
        kept_s = 0.0 if channel is None else channel.policy.teaching.keep_inputs_s
        self._records.keep_input(connection, record.number, record.received + kept_s if kept_s else None)

    def _answered(self, item: int) -> EscalationRecord:
        found = self._records.get(item)
        if found is None:
            raise NotFound(f"item {item} is not there any more")
        return found

    def _spec(self, record: EscalationRecord) -> PersonSpec:
        row = self._staff.find(record.teacher)
        return row.spec if row is not None and isinstance(row.spec, PersonSpec) else PersonSpec(kind="person")


def at_once(items: Sequence[EscalationRecord]) -> list[EscalationRecord]:
    """The first of them whose messages have `MOST_SHOWN_BYTES` together, and one in any case."""
    sizes = accumulate(item.bytes for item in items)
    return [
        item
        for place, (item, size) in enumerate(zip(items, sizes, strict=True))
        if not place or size <= MOST_SHOWN_BYTES
    ]


def _asked(channel: str | None, teacher: str | None) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [table.c.state == ASKED]
    if channel is not None:
        wanted.append(table.c.channel == channel)
    if teacher is not None:
        wanted.append(table.c.teacher == teacher)
    return wanted


def _set(connection: Connection, record: EscalationRecord, **values: object) -> None:
    connection.execute(table.update().where(table.c.number == record.number).values(**values))
