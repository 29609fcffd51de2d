"""How much each strategy wants an answered row: one pure function each, and the little that two of them remember.

A score is 0 for a row that is not wanted, and grows with the wish; only its ratio to the mean of all rows counts.
Disagreement has none: it is known only when somebody has said what is right, and then a row is drawn once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.records import dataclass

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]

#: Kept rows whose features new ones are compared with. The nearest of 64 tells a new kind of input from a known one.
REMEMBERED = 64
#: Rows after which half of what is known of the classes' shares is forgotten.
CLASSES_FORGET = 10_000.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Answered rows of one release.

    Attributes:
        probabilities: float [N, K], K ≥ 1.
        features: float [N, F], or None where the run made none.
        drifted: whether the device sees a drift of this release now.
    """

    probabilities: Array
    features: Array | None
    drifted: bool = False

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Class of each row."""
        return np.asarray(self.probabilities.argmax(axis=1))


class Memory:
    """What is remembered of the rows of one release: how often each class is answered, and what was kept."""

    def __init__(self) -> None:
        self.classes: Scores = np.zeros(0)
        self.kept: Array = np.zeros((0, 0), np.float32)
        self._next = 0

    def seen(self, rows: Rows) -> None:
        """Rows were answered."""
        count = rows.probabilities.shape[1]
        if len(self.classes) != count:
            self.classes = np.zeros(count)
        self.classes += np.bincount(rows.predicted, minlength=count)
        if self.classes.sum() > 2 * CLASSES_FORGET:
            self.classes /= 2

    def keep(self, features: Array | None) -> None:
        """A row was kept; ``features`` is float [F]."""
        if features is None:
            return
        if self.kept.shape[1:] != features.shape:
            self.kept, self._next = np.zeros((0, len(features)), np.float32), 0
        if len(self.kept) < REMEMBERED:
            self.kept = np.concatenate([self.kept, features[None].astype(np.float32)])
        else:
            self.kept[self._next % REMEMBERED] = features
        self._next += 1


def scores(strategy: str, rows: Rows, memory: Memory) -> Scores:
    """How much a strategy of `edgeloop.sampling.policy.STRATEGIES` wants each row, float64 [N], ≥ 0 and finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = _SCORES[strategy](rows, memory)
    return np.asarray(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0))


def _random(rows: Rows, memory: Memory) -> Scores:
    return np.ones(len(rows))


def _uncertainty(rows: Rows, memory: Memory) -> Scores:
    """One minus the margin between the two likeliest classes."""
    if rows.probabilities.shape[1] < 2:
        return np.zeros(len(rows))
    second, first = np.partition(rows.probabilities, -2, axis=1)[:, -2:].T.astype(np.float64)
    return np.asarray(np.clip(1.0 - (first - second), 0.0, 1.0))


def _diversity(rows: Rows, memory: Memory) -> Scores:
    """Distance to the nearest row that was kept; 1 while nothing is, 0 without features."""
    if rows.features is None:
        return np.zeros(len(rows))
    features = rows.features.reshape(len(rows), -1).astype(np.float64)
    if not len(memory.kept) or memory.kept.shape[1] != features.shape[1]:
        return np.ones(len(rows))
    kept = memory.kept.astype(np.float64)
    squares = (features**2).sum(1)[:, None] - 2 * features @ kept.T + (kept**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0.0)))


def _balance(rows: Rows, memory: Memory) -> Scores:
    """Inverse of the share of the class that was answered: every class is kept as often as any other."""
    count = rows.probabilities.shape[1]
    classes = memory.classes if len(memory.classes) == count else np.zeros(count)
    shares = (classes + 1.0) / (classes.sum() + count)
    return np.asarray(1.0 / (count * shares[rows.predicted]))


def _drift(rows: Rows, memory: Memory) -> Scores:
    return np.full(len(rows), float(rows.drifted))


def _disagreement(rows: Rows, memory: Memory) -> Scores:
    return np.zeros(len(rows))


_SCORES: Mapping[str, Callable[[Rows, Memory], Scores]] = {
    "random": _random,
    "uncertainty": _uncertainty,
    "diversity": _diversity,
    "balance": _balance,
    "disagreement": _disagreement,
    "drift": _drift,
}
