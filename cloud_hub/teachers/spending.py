"""Hard limits of what teachers may cost. What a call may cost at most is set aside before it, in the records.

So a hub that is killed in the middle of a call counts it as made, and calls at the same time cannot pass a limit
together. Days and months are those of UTC.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from cloud_hub.records.database import Database
from cloud_hub.records.teaching_tables import teacher_spending as table
from cloud_hub.teachers.port import TooDear

DAY_S = 86_400.0
#: Sums of money that differ by less are the same: ten calls of 0.1 are within 1.
_EPSILON = 1e-9


@dataclass(frozen=True)
class Limits:
    """What may be spent; None for any sum.

    Attributes:
        teacher_day: with the teacher, a day.
        teacher_month: with the teacher, a calendar month.
        channel_day: by the channel, with all teachers, a day.
    """

    teacher_day: float | None = None
    teacher_month: float | None = None
    channel_day: float | None = None


@dataclass(frozen=True)
class Reservation:
    """What was set aside for a call: it has to be settled."""

    day: int
    teacher: str
    channel: str
    amount: float


@dataclass(frozen=True)
class Spent:
    """What a channel has spent with a teacher on a day.

    Attributes:
        day: days since 1970-01-01, UTC.
        teacher: its name.
        channel: its name.
        calls: how many.
        tokens_in: that the calls had.
        tokens_out: that the answers had.
        spent: money.
        reserved: set aside for calls under way.
    """

    day: int
    teacher: str
    channel: str
    calls: int
    tokens_in: int
    tokens_out: int
    spent: float
    reserved: float


class Spending:
    """The purse.

    Args:
        db: the records.
        clock: unix seconds.
    """

    def __init__(self, db: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db, self._clock = db, clock
        with db.begin() as connection:  # calls of a hub that was killed: they may have been made
            left = table.c.reserved != 0
            connection.execute(table.update().where(left).values(spent=table.c.spent + table.c.reserved, reserved=0.0))

    def reserve(self, teacher: str, channel: str, amount: float, limits: Limits) -> Reservation:
        """Set money aside for a call.

        Args:
            teacher: its name.
            channel: on whose account.
            amount: what the call costs at most.
            limits: what may be spent.

        Raises:
            TooDear: a limit would be passed.
        """
        now = self._clock()
        day = int(now // DAY_S)
        of_teacher, of_channel = table.c.teacher == teacher, table.c.channel == channel
        sums: Sequence[tuple[str, float | None, Any]] = (
            (f"{teacher} may cost {limits.teacher_day} a day", limits.teacher_day, of_teacher & (table.c.day == day)),
            (
                f"{teacher} may cost {limits.teacher_month} a month",
                limits.teacher_month,
                of_teacher & (table.c.day >= first_of_month(now)),
            ),
            (f"{channel} may spend {limits.channel_day} a day", limits.channel_day, of_channel & (table.c.day == day)),
        )
        with self._db.begin() as connection:
            for limit, most, rows in sums:
                if most is not None:
                    there = _sum(connection, rows)
                    if there + amount > most + _EPSILON:
                        raise TooDear(f"{limit}, {there:.6g} is spent or set aside, a call may cost {amount:.6g}")
            _add(connection, day, teacher, channel, reserved=amount)
        return Reservation(day, teacher, channel, amount)

    def settle(self, reservation: Reservation, cost: float, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Book what the call really cost, and give the rest back."""
        with self._db.begin() as connection:
            _add(
                connection,
                reservation.day,
                reservation.teacher,
                reservation.channel,
                calls=1,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                spent=cost,
                reserved=-reservation.amount,
            )

    def lately(self, teacher: str) -> tuple[float, float]:
        """What a teacher has cost today and this month, with what is set aside."""
        now = self._clock()
        mine = table.c.teacher == teacher
        with self._db.read() as connection:
            today = _sum(connection, mine & (table.c.day == int(now // DAY_S)))
            return today, _sum(connection, mine & (table.c.day >= first_of_month(now)))

    def since(self, day: int) -> list[Spent]:
        """What was spent from a day on, by day, teacher and channel."""
        query = select(table).where(table.c.day >= day).order_by(table.c.day, table.c.teacher, table.c.channel)
        with self._db.read() as connection:
            return [Spent(**row._mapping) for row in connection.execute(query)]


def first_of_month(now: float) -> int:
    """The day on which the month began, days since 1970-01-01, UTC."""
    return int(datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp() // DAY_S)


def _sum(connection: Connection, rows: Any) -> float:
    found = connection.execute(select(func.sum(table.c.spent + table.c.reserved)).where(rows)).scalar()
    return float(found or 0.0)


def _add(connection: Connection, day: int, teacher: str, channel: str, **more: float) -> None:
    same = (table.c.day == day) & (table.c.teacher == teacher) & (table.c.channel == channel)
    raised = {name: table.c[name] + value for name, value in more.items()}
    if not connection.execute(table.update().where(same).values(**raised)).rowcount:
        zero = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "spent": 0.0, "reserved": 0.0}
        connection.execute(table.insert().values(day=day, teacher=teacher, channel=channel, **{**zero, **more}))
