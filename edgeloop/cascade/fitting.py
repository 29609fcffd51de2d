"""Choosing a threshold: by the accuracy that is wanted, or by the share that there is a budget for.

From rows whose right answers are known, such as a validation set; or, where there are none, from escalated rows alone,
each weighted by the inverse of the chance with which it was drawn, so that they stand for all.
"""

from __future__ import annotations

import math

import numpy as np

from edgeloop.cascade.drawing import chances
from edgeloop.cascade.hardness import from_log_odds, log_odds
from edgeloop.insights.sizes import Array, Floats
from edgeloop.records import dataclass

#: Thresholds of a soft curve: so many of the rows' own hardness, and as many at equal steps of log odds.
GRID = 128
#: Shares that differ by less are the same to whoever pays for them.
LEAST_MOVE = 0.02
#: Standard errors by which a share has to have moved.
SURE = 2.0


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """What a threshold costs and brings, at every threshold there is.

    Attributes:
        thresholds: of hardness, float64 [m], falling: rows at least as hard are escalated. The first escalates none, or
            what the floor draws.
        shares: of the rows that are escalated then, float64 [m], rising, to 1 or nearly.
        accuracies: of what clients get then, float64 [m].
        effective: rows of weight 1 that would tell as much (Kish 1965): the square of the sum over the sum of squares.
    """

    thresholds: Floats
    shares: Floats
    accuracies: Floats
    effective: float

    @classmethod
    def of(cls, hardness: Floats, edge: Array, teacher: Array, weights: Floats | None = None) -> Tradeoff:
        """The whole curve of a rule that escalates every row which is at least as hard as the threshold.

        Args:
            hardness: float64 [n] in 0…1.
            edge: bool [n], whether the device's answer is right; or its chance to be, float64 [n].
            teacher: the same of what the client gets when the row is escalated.
            weights: float64 [n], above 0: rows that each stands for; None: 1 each.

        Raises:
            ValueError: there are no rows, or the arrays do not fit one another.
        """
        each = _weights(hardness, edge, teacher, weights)
        order = np.argsort(-hardness, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(hardness[order])), len(order) - 1)  # equally hard rows go together
        total = each.sum()
        gained = np.cumsum((each * (teacher.astype(np.float64) - edge))[order])[ends]
        alone = float((each * edge).sum() / total)
        return cls(
            np.concatenate([[np.inf], hardness[order][ends]]),
            np.concatenate([[0.0], np.cumsum(each[order])[ends] / total]),
            np.concatenate([[alone], alone + gained / total]),
            _effective(each),
        )

    @classmethod
    def drawn(
        cls,
        hardness: Floats,
        edge: Array,
        teacher: Array,
        weights: Floats | None = None,
        *,
        softness: float,
        floor: float,
    ) -> Tradeoff:
        """The curve of a device, which draws: each row with its chance by `edgeloop.cascade.drawing.chances`.

        Args:
            hardness: float64 [n] in 0…1.
            edge: bool [n], whether the device's answer is right; or its chance to be, float64 [n].
            teacher: the same of what the client gets when the row is escalated.
            weights: float64 [n], above 0: rows that each stands for; None: 1 each.
            softness: of the policy.
            floor: of the policy.

        Raises:
            ValueError: there are no rows, or the arrays do not fit one another.
        """
        each = _weights(hardness, edge, teacher, weights)
        odds = log_odds(hardness)
        grid = _grid(odds)
        part = each / each.sum()
        gain = part * (teacher.astype(np.float64) - edge)
        chance = np.stack([chances(odds, threshold, softness, floor) for threshold in grid])
        alone = float((part * edge).sum())
        return cls(
            np.concatenate([[np.inf], from_log_odds(grid)]),
            np.concatenate([[floor], chance @ part]),
            np.concatenate([[alone + floor * float(gain.sum())], alone + chance @ gain]),
            _effective(each),
        )

    def for_accuracy(self, wanted: float) -> float | None:
        """The threshold with the least share whose accuracy is at least ``wanted``; None: none reaches it."""
        reached = np.flatnonzero(self.accuracies >= wanted)
        return _usable(self.thresholds[reached[0]]) if len(reached) else None

    def for_share(self, most: float) -> float:
        """The threshold with the best accuracy among those that escalate no more than ``most``, 0…1 of the rows."""
        allowed = np.flatnonzero(self.shares <= most)
        return _usable(self.thresholds[allowed[np.argmax(self.accuracies[allowed])]]) if len(allowed) else 1.0

    def nearest(self, share: float) -> float:
        """The threshold whose share is the nearest to this one, whatever that brings."""
        return _usable(self.thresholds[np.argmin(np.abs(self.shares - share))])

    def at(self, share: float) -> float:
        """Accuracy when about this share is escalated, between two thresholds on the straight line."""
        return float(np.interp(share, self.shares, self.accuracies))

    def share_of(self, threshold: float) -> float:
        """Share that is escalated with this threshold, 0…1, between two thresholds on the straight line."""
        # The first one stands for a threshold that nothing reaches.
        return float(np.interp(-threshold, -self.thresholds[1:], self.shares[1:], left=self.shares[0]))

    def moved(self, present: float, found: float) -> bool:
        """Whether a threshold is worth changing: by what it escalates, and more than chance would have it.

        Args:
            present: threshold in force.
            found: threshold that was fitted now.
        """
        share = self.share_of(found)
        error = math.sqrt(share * (1 - share) / self.effective)
        return abs(share - self.share_of(present)) > max(LEAST_MOVE, SURE * error)


@dataclass(frozen=True)
class Choice:
    """A threshold that was chosen.

    Attributes:
        threshold: hardness in 0…1.
        share: of the rows that is escalated with it.
        accuracy: of what clients get then.
        missed: why it is not what was wanted, or "".
    """

    threshold: float
    share: float
    accuracy: float
    missed: str = ""


def choose(tradeoff: Tradeoff, *, accuracy: float | None, share: float | None, max_share: float) -> Choice:
    """The threshold for what is wanted: an accuracy with the least share, or a share.

    An accuracy that cannot be had, or not within the budget, is not gone after: the best within the budget is taken.

    Args:
        tradeoff: the curve.
        accuracy: that is wanted, or None.
        share: that is wanted, where no accuracy is.
        max_share: the budget, 0…1.
    """
    missed = ""
    if accuracy is None:
        threshold = tradeoff.nearest(max_share if share is None else min(share, max_share))
    else:
        wanted, most = tradeoff.for_accuracy(accuracy), float(tradeoff.accuracies.max())
        threshold = tradeoff.for_share(max_share) if wanted is None else wanted
        if wanted is None:
            missed = f"an accuracy of {accuracy:g} is out of reach: {most:.3f} is the most, however much is sent"
        elif (needed := tradeoff.share_of(wanted)) > max_share:
            threshold = tradeoff.for_share(max_share)
            missed = f"an accuracy of {accuracy:g} takes a share of {needed:.2f}"
        missed = missed and f"{missed}; the budget rules, a share of {max_share:g}"
    escalated = tradeoff.share_of(threshold)
    return Choice(threshold, escalated, tradeoff.at(escalated), missed)


def _weights(hardness: Floats, edge: Array, teacher: Array, weights: Floats | None) -> Floats:
    each = np.ones(len(hardness)) if weights is None else np.asarray(weights, np.float64)
    if not len(hardness) or not hardness.shape == edge.shape == teacher.shape == each.shape:
        raise ValueError("give hardness, both answers and weights of the same rows, and at least one row")
    if not (each > 0).all():
        raise ValueError("a weight is not above 0; a row that stands for none has to be left out")
    return each


def _effective(weights: Floats) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _grid(odds: Floats) -> Floats:
    """Thresholds in log odds, falling: where rows lie, and evenly about them, as far as a policy can go."""
    least, most = log_odds(np.array([0.0, 1.0]))
    evenly = np.linspace(max(odds.min() - 4.0, least), min(odds.max() + 4.0, most), GRID)
    return np.unique(np.concatenate([np.quantile(odds, np.linspace(0, 1, GRID)), evenly]))[::-1].copy()


def _usable(threshold: float) -> float:
    """As a policy has it, 0…1."""
    return float(min(max(threshold, 0.0), 1.0))
