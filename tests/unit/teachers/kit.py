"""Escalations, questions and a teacher that does what it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cloud_hub.teachers.desk import Case, Desk
from cloud_hub.teachers.port import Opinion, Outcome, Question
from edgeloop.protocol import Escalation
from edgeloop.protocol.inputs import Tensor

DIGITS = tuple(str(digit) for digit in range(10))


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return value


def escalation(release: str, **changes: Any) -> Escalation:
    """An input of the small package of the tests, 64 numbers."""
    row = np.linspace(0, 1, 64, dtype=np.float32)
    values: dict[str, Any] = {
        "device": "camera-1",
        "channel": "stable",
        "release": release,
        "id": "p-1",
        "form": "input",
        "tensors": {"x": Tensor.of(row)},
        "probability": 0.25,
        "predicted": 3,
        "confidence": 0.4,
        **changes,
    }
    return Escalation(**values)


def question(*rows: Any, labels: tuple[str, ...] = DIGITS, classes: int = 10, name: str = "x") -> Question:
    """A question about one tensor for each row."""
    tensors = {f"{name}{number or ''}": np.asarray(row) for number, row in enumerate(rows)}
    return Question(tensors, labels, classes, "input", "stable")


class Told:
    """A teacher that answers what it is told to, when it is told to."""

    def __init__(self, batch: int = 1) -> None:
        self.batch, self.asked, self.closed = batch, list[int](), False
        self.outcome: Callable[[Question], Outcome] = lambda _question: Opinion(7, 0.9)
        self.go = threading.Event()
        self.go.set()

    def answer(self, questions: Sequence[Question], timeout_s: float) -> Sequence[Outcome]:
        self.asked.append(len(questions))
        assert self.go.wait(20)
        return [self.outcome(one) for one in questions]

    def close(self) -> None:
        self.closed = True


class Counter:
    """A desk with a teacher, and what came of the cases in order."""

    def __init__(self, teacher: Told, **settings: Any) -> None:
        self.teacher, self.now = teacher, 1000.0
        values: dict[str, Any] = {"instances": 1, "timeout_s": 20.0, "most": 4, "most_bytes": 1000, **settings}
        self.desk = Desk("told", lambda: teacher, clock=lambda: self.now, **values)
        self.outcomes: dict[str, Outcome] = {}

    def put(self, name: str, *, wait: bool = False, size: int = 10, patience_s: float = 60.0) -> None:
        def then(outcome: Outcome, _ms: float) -> None:
            self.outcomes[name] = outcome

        self.desk.put(Case(question([0.0]), wait, self.now + patience_s, size, then))

    def heard(self, name: str) -> Outcome:
        """What came of a case."""
        outcome: Outcome = until(lambda: self.outcomes.get(name))
        return outcome
