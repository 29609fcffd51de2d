"""What the teacher's answers teach a device of its own: the chance that the teacher would differ.

A release that was trained in another world is wrong in ways that its own confidence does not show. Its features mostly
still tell the classes apart: so a small discriminant is fitted on the places of the rows that the teacher has answered,
weighted by the inverse of their chance to be drawn, and asked how likely the class is that the release answered. This
is the *opinion*. A logistic regression then says what the opinion is worth beside the release's own signals; for that
each row's opinion is one that was fitted without it. Before the first answers, hardness is what the signals tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeloop.cascade.hardness import CLASS, WIDTH, from_log_odds, log_odds, told
from edgeloop.insights.sizes import Array, Floats, Ints

#: The signal by which a policy says that devices learn from the answers.
OPINION = "opinion"
#: Answers that are kept, of the release that runs; a row has at most 69 numbers.
KEPT = 400
#: Answers after which one counts half: so a new world is learned, and an old one forgotten, within some dozen answers.
HALF_LIFE = 100
#: With fewer answers nothing is learned yet.
FEWEST = 16
#: Answers between two fits; a fit takes some milliseconds, and some dozen on a small device.
EVERY = 8
#: Share of the mean variance that the discriminant's covariance is shrunk to; from dozens of rows it is mostly noise.
SHRINKAGE = 0.3
FOLDS = 4
#: More classes than this need more answers than are kept.
MOST_CLASSES = 100
#: Before any answer: what the signals tell, and nothing else. Means and precisions of the logistic weights.
_PRIOR = np.array([0.0, 1.0, 0.0])
_PRECISION = np.array([0.5, 4.0, 4.0])
#: An opinion in log odds is no larger than this: those of a discriminant from dozens of rows are far too sure.
_SUREST = 8.0


class _Answers(NamedTuple):
    """What is kept of the teacher's answers, the oldest first: signals [m, S], classes [m], weights [m]."""

    rows: Floats
    labels: Ints
    weights: Floats

    @classmethod
    def none(cls, width: int = WIDTH) -> _Answers:
        """No answers yet, of a model with so many signals."""
        return cls(np.zeros((0, width)), np.zeros(0, np.int64), np.zeros(0))

    def with_one(self, row: Floats, label: int, weight: float) -> _Answers:
        """These and a new one; those of another model are left behind, and the oldest of too many."""
        kept = self if self.rows.shape[1] == len(row) else _Answers.none(len(row))
        return _Answers(
            np.concatenate([kept.rows[1 - KEPT :], row.astype(np.float64)[None]]),
            np.append(kept.labels[1 - KEPT :], label),
            np.append(kept.weights[1 - KEPT :], weight),
        )


class Learner:
    """Learns from the answers of a teacher.

    Whoever calls makes sure that one thread at a time teaches or asks. `fit` takes long, and may run beside them: what
    it reads and what it leaves are each replaced as a whole.

    Args:
        names: the policy's signals; without `OPINION` nothing is learned.
        classes: K of the release.
        plain: of an earlier one of the same release; anything else is left alone.
    """

    def __init__(self, names: Sequence[str], classes: int, plain: Any = None) -> None:
        self._names, self._classes = tuple(names), classes
        self._learns = OPINION in names and 2 <= classes <= MOST_CLASSES
        self._answers, self._fresh = _Answers.none(), 0
        self._fitted: _Fitted | None = None
        if self._learns and isinstance(plain, Mapping):
            self._load(plain)

    @property
    def answers(self) -> int:
        """Answers that are kept."""
        return len(self._answers.labels)

    @property
    def due(self) -> bool:
        """Whether so many answers have come that `fit` would see more than it has."""
        return self._fresh >= EVERY and self.answers >= FEWEST

    def hardness(self, signals: Floats) -> Floats:
        """Hardness of rows, float64 [n] in 0…1: the chance that a teacher would differ, as far as anybody knows."""
        by_signals, fitted = told(signals, self._names), self._fitted
        if fitted is None or signals.shape[1] != fitted.width:
            return by_signals
        return from_log_odds(_design(by_signals, fitted.opinion(signals)) @ fitted.line)

    def learn(self, row: Floats, label: int, weight: float) -> None:
        """An answer has come; it is kept, and `fit` learns from it.

        Args:
            row: signals of the row, [S].
            label: the teacher's class.
            weight: inverse of the chance with which the row was drawn, clipped.
        """
        if self._learns and 0 <= label < self._classes:
            self._answers = self._answers.with_one(row, label, weight)
            self._fresh += 1

    def fit(self) -> None:
        """Learn from the answers that are kept; by one thread at a time."""
        if self.answers >= FEWEST:
            self._fresh = 0
            self._fitted = _Fitted.to(self._answers, self._names, self._classes)

    def plain(self) -> dict[str, Any]:
        """The answers, as bytes."""
        rows, labels, weights = self._answers
        return {
            "width": rows.shape[1],
            "rows": rows.astype("<f4").tobytes(),
            "labels": labels.astype("<i4").tobytes(),
            "weights": weights.astype("<f4").tobytes(),
        }

    def _load(self, plain: Mapping[str, Any]) -> None:
        try:
            weights = np.frombuffer(plain["weights"], "<f4").astype(np.float64)
            labels = np.frombuffer(plain["labels"], "<i4").astype(np.int64)
            rows = np.frombuffer(plain["rows"], "<f4").astype(np.float64).reshape(len(labels), int(plain["width"]))
        except (KeyError, TypeError, ValueError):
            return
        known = ((labels >= 0) & (labels < self._classes)).all() and len(labels) == len(weights) <= KEPT
        if not known or rows.shape[1] < WIDTH or not np.isfinite(rows).all() or not (weights > 0).all():
            return
        answered = rows[:, CLASS]
        if not np.isfinite(weights).all() or not ((answered >= 0) & (answered < self._classes)).all():
            return
        self._answers, self._fresh = _Answers(rows, labels, weights), len(labels)


class _Fitted(NamedTuple):
    """What a fit leaves: the opinion, the logistic weights that say what it is worth, and the signals that it is of."""

    opinion: _Opinion
    line: Floats
    width: int

    @classmethod
    def to(cls, answers: _Answers, names: Sequence[str], classes: int) -> _Fitted:
        """Fitted to answers."""
        rows, labels, weights = answers
        recent = 0.5 ** (np.arange(len(labels))[::-1] / HALF_LIFE)
        folds = np.arange(len(labels)) % FOLDS
        unseen = np.zeros(len(labels))
        for fold in range(FOLDS):
            out = folds == fold
            unseen[out] = _Opinion.of(rows[~out], labels[~out], (recent * weights)[~out], classes)(rows[out])
        differs = rows[:, CLASS].astype(np.int64) != labels
        line = _logistic(_design(told(rows, names), unseen), differs, recent)
        return cls(_Opinion.of(rows, labels, recent * weights, classes), line, rows.shape[1])


class _Opinion:
    """A linear discriminant with a shrunk covariance (Friedman 1989) of the rows' places."""

    def __init__(self, weight: Floats, bias: Floats, seen: Array) -> None:
        self._weight, self._bias, self._seen = weight, bias, seen

    @classmethod
    def of(cls, rows: Floats, labels: Ints, weights: Floats, classes: int) -> _Opinion:
        """Fitted on signals [m, S] with labels [m] and weights [m]."""
        places = rows[:, WIDTH:]
        one_hot = np.zeros((len(labels), classes))
        one_hot[np.arange(len(labels)), labels] = weights
        count = one_hot.sum(axis=0)
        seen = count > 0
        means = (one_hot.T @ places) / np.where(seen, count, 1.0)[:, None]
        away = places - means[labels]
        scatter = (away * weights[:, None]).T @ away / weights.sum()
        middle = float(np.trace(scatter)) / max(len(scatter), 1)
        shrunk = (1 - SHRINKAGE) * scatter + (SHRINKAGE * middle + 1e-12) * np.eye(len(scatter))
        weight = np.linalg.solve(shrunk, means.T).T if len(scatter) else means
        priors = (count + 1) / (count.sum() + classes)
        return cls(weight, np.log(priors) - 0.5 * np.sum(weight * means, axis=1), seen)

    def __call__(self, signals: Floats) -> Floats:
        """Log odds that the class of each row is not the right one, [n]; 0 for a class that was never seen."""
        scores = signals[:, WIDTH:] @ self._weight.T + self._bias
        scores[:, ~self._seen] = -np.inf
        answered = signals[:, CLASS].astype(np.int64)
        at = np.arange(len(signals))
        own = scores[at, answered]
        scores[at, answered] = -np.inf
        top = scores.max(axis=1)
        with np.errstate(invalid="ignore"):  # a single class that was seen has no others
            others = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        known = self._seen[answered] & np.isfinite(others)
        return np.where(known, np.clip(np.where(known, others, 0) - np.where(known, own, 0), -_SUREST, _SUREST), 0.0)


def _design(by_signals: Floats, opinion: Floats) -> Floats:
    return np.stack([np.ones(len(opinion)), log_odds(by_signals), opinion], axis=1)


def _logistic(design: Floats, truth: Array, weights: Floats) -> Floats:
    """Weights of a logistic regression about `_PRIOR`, by Newton's method."""
    line = _PRIOR
    for _ in range(25):
        chance = from_log_odds(design @ line)
        gradient = design.T @ (weights * (truth - chance)) - _PRECISION * (line - _PRIOR)
        bend = (design * (weights * chance * (1 - chance))[:, None]).T @ design + np.diag(_PRECISION)
        step = np.linalg.solve(bend, gradient)
        line = line + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:
            break
    return line
