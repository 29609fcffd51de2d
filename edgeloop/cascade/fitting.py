"""Choosing a threshold: by the accuracy that is wanted, or by the share that there is a budget for.

From rows whose right answers are known, such as a validation set; or, where there are none, from escalated rows alone,
each weighted by the inverse of the chance with which it was drawn, so that they stand for all.
"""

from __future__ import annotations

import numpy as np

from edgeloop.insights.sizes import Array, Floats
from edgeloop.records import dataclass


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """What a threshold costs and brings, at every threshold there is.

    Attributes:
        thresholds: of hardness, float64 [m], falling: rows at least as hard are escalated. The first escalates none.
        shares: of the rows that are escalated then, float64 [m], rising from 0 to 1.
        accuracies: of what clients get then, float64 [m].
    """

    thresholds: Floats
    shares: Floats
    accuracies: Floats

    @classmethod
    def of(cls, hardness: Floats, edge: Array, teacher: Array, weights: Floats | None = None) -> Tradeoff:
        """The whole curve.

        Args:
            hardness: float64 [n] in 0…1.
            edge: bool [n], whether the device's answer is right.
            teacher: bool [n], whether what the client gets is right when the row is escalated.
            weights: float64 [n], above 0: rows that each stands for; None: 1 each.

        Raises:
            ValueError: there are no rows, or the arrays do not fit one another.
        """
        each = np.ones(len(hardness)) if weights is None else np.asarray(weights, np.float64)
        if not len(hardness) or not hardness.shape == edge.shape == teacher.shape == each.shape:
            raise ValueError("give hardness, both answers and weights of the same rows, and at least one row")
        if not (each > 0).all():
            raise ValueError("a weight is not above 0; a row that stands for none has to be left out")
        order = np.argsort(-hardness, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(hardness[order])), len(order) - 1)  # equally hard rows go together
        total = each.sum()
        gained = np.cumsum((each * (teacher.astype(np.float64) - edge))[order])[ends]
        alone = float((each * edge).sum() / total)
        return cls(
            np.concatenate([[np.inf], hardness[order][ends]]),
            np.concatenate([[0.0], np.cumsum(each[order])[ends] / total]),
            np.concatenate([[alone], alone + gained / total]),
        )

    def for_accuracy(self, wanted: float) -> float | None:
        """The threshold with the least share whose accuracy is at least ``wanted``; None: none reaches it."""
        reached = np.flatnonzero(self.accuracies >= wanted)
        return _usable(self.thresholds[reached[0]]) if len(reached) else None

    def for_share(self, most: float) -> float:
        """The threshold with the best accuracy among those that escalate no more than ``most``, 0…1 of the rows."""
        allowed = np.flatnonzero(self.shares <= most)
        return _usable(self.thresholds[allowed[np.argmax(self.accuracies[allowed])]])

    def at(self, share: float) -> float:
        """Accuracy when about this share is escalated, between two thresholds on the straight line."""
        return float(np.interp(share, self.shares, self.accuracies))


def _usable(threshold: float) -> float:
    """As a policy has it, 0…1."""
    return float(min(max(threshold, 0.0), 1.0))
