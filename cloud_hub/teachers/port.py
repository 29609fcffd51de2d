"""The port of teachers: what they are asked, what they answer, and why they do not.

A kind of teacher is one class that has `Teacher`'s methods; `cloud_hub.teachers.kinds` makes it of its settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Question:
    """One row that a device is not sure of.

    Attributes:
        tensors: by name, without the batch's dimension; a text is bytes in an array of objects of shape [].
        labels: names of the classes of the model that answered, in order; () where its package has none.
        classes: how many classes it has.
        form: what travelled: ``input``, ``small`` or ``features``.
        channel: of the device, on whose account it is asked.
        budget: what the channel may spend in a day, or None for any sum.
    """

    tensors: Mapping[str, Array]
    labels: tuple[str, ...]
    classes: int
    form: str
    channel: str
    budget: float | None = None

    def names(self) -> tuple[str, ...]:
        """What the classes are called; without names, their numbers."""
        return self.labels or tuple(str(number) for number in range(self.classes))

    def index_of(self, label: str) -> int | None:
        """The class of this name, or None; where classes have no names, their number is the name."""
        if self.labels:
            return self.labels.index(label) if label in self.labels else None
        number = int(label) if label.isascii() and label.isdecimal() and len(label) < 10 else -1
        return number if 0 <= number < self.classes else None


@dataclass(frozen=True)
class Opinion:
    """What a teacher says.

    Attributes:
        label: index of the class, of the model that answered.
        confidence: 0…1, or None where the teacher gives none.
        cost: what the call cost, in the unit of the teacher's prices.
        calibrated: whether the confidence is the share of right answers that have it, as known rows say.
    """

    label: int
    confidence: float | None = None
    cost: float = 0.0
    calibrated: bool = False


class TeacherError(Exception):
    """Why a teacher gives no answer: root of the reasons. The next teacher is asked.

    Attributes:
        faulty: whether it speaks against the teacher: after a few in a row nobody asks it for a while.
        cost: what the call cost all the same.
    """

    faulty = False

    def __init__(self, message: str, *, cost: float = 0.0) -> None:
        super().__init__(message)
        self.cost = cost


class Unfit(TeacherError):
    """This teacher cannot answer this question; it may answer the next one."""


class TooDear(TeacherError):
    """A spending limit is reached."""


class Busy(TeacherError):
    """There is no room for the question, or no time."""


class Unavailable(TeacherError):
    """It is down, slow or refuses to work now.

    Args:
        message: what happened.
        retry_after_s: seconds in which it wants no further question; 0 where it does not say.
        after_sending: whether it may have got the question, and may charge for it.
        cost: what the call cost all the same.
    """

    faulty = True

    def __init__(
        self, message: str, *, retry_after_s: float = 0.0, after_sending: bool = False, cost: float = 0.0
    ) -> None:
        super().__init__(message, cost=cost)
        self.retry_after_s, self.after_sending = retry_after_s, after_sending


class Malformed(TeacherError):
    """Its answer is none: not in the schema, a label that is no class, too long."""

    faulty = True


Outcome = Opinion | TeacherError


class Teacher(Protocol):
    """Whoever answers at once. Its methods are called by several threads at a time.

    Attributes:
        batch: questions that it takes at a time, at most.
    """

    batch: int

    def answer(self, questions: Sequence[Question], timeout_s: float) -> Sequence[Outcome]:
        """Answer questions, at most ``batch``; one outcome each, in order.

        Args:
            questions: of any channel.
            timeout_s: seconds after which nobody waits any more.

        Raises:
            TeacherError: none of them can be answered.
        """

    def close(self) -> None:
        """Free what it holds."""


def same_numbers(row: Array, dtype: npt.DTypeLike) -> Array | None:
    """The row in another type of number, where that loses nothing that matters; None where it would mean another thing.

    Floats become floats and whole numbers become whole numbers or floats. Never floats whole numbers: 0.7 is no 0.
    """
    wanted = np.dtype(dtype)
    if row.dtype == wanted:
        return row
    if row.dtype.kind == "O" or wanted.kind == "O" or (row.dtype.kind == "f" and wanted.kind != "f"):
        return None
    if wanted.kind in "iu" and row.size:
        bounds = np.iinfo(wanted)
        if int(row.min()) < bounds.min or int(row.max()) > bounds.max:
            return None
    return row.astype(wanted)
