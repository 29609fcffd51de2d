"""A call that may cost money: set aside what it may cost, make it, book what it did cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from cloud_hub.teachers.port import Question, TeacherError, Unavailable
from cloud_hub.teachers.spending import Limits, Spending

T = TypeVar("T")


class Bill(NamedTuple):
    """What a call did cost.

    Attributes:
        cost: money.
        tokens_in: that it had.
        tokens_out: that the answer had.
    """

    cost: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


class Till:
    """One teacher's till.

    Args:
        teacher: its name.
        spending: the purse.
        per_day: what the teacher may cost in a day, or None.
        per_month: what it may cost in a month, or None.
    """

    def __init__(self, teacher: str, spending: Spending, per_day: float | None, per_month: float | None) -> None:
        self._teacher, self._spending, self._per_day, self._per_month = teacher, spending, per_day, per_month

    def pay(self, question: Question, most: float, call: Callable[[], tuple[T, Bill]]) -> tuple[T, float]:
        """Make a call; returns what it gave and what it cost.

        Args:
            question: on whose channel's account.
            most: what it may cost; 0: it is free, and nothing is booked.
            call: makes it.

        Raises:
            TeacherError: of the call, with what it cost all the same; or a limit would be passed.
        """
        if most <= 0:
            return call()[0], 0.0
        limits = Limits(self._per_day, self._per_month, question.budget)
        try:
            reserved = self._spending.reserve(self._teacher, question.channel, most, limits)
        except SQLAlchemyError as error:  # nothing is spent that cannot be booked
            raise Unavailable("what it costs cannot be booked now: the records cannot be written") from error
        # Who may have got the question, and has not said what it costs, is taken to charge all that was set aside.
        bill = Bill(most)
        try:
            found, bill = call()
        except TeacherError as error:
            sent = not isinstance(error, Unavailable) or error.after_sending
            bill = Bill(error.cost or (most if sent else 0.0))
            error.cost = bill.cost
            raise
        finally:
            with suppress(SQLAlchemyError):  # then it stays set aside, and counts as spent at the next start
                self._spending.settle(reserved, *bill)
        return found, bill.cost
