"""Heads judged by a share's sums: the normal approximation of its logits, and the scale that makes them mean something.

Within class k the logits have the mean W m_k + b and the covariance W Σ Wᵀ of the share; rows are drawn in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cloud_hub.training.head_statistics import Floats, Ints, Share

#: Draws in all for the normal approximation; the error of an accuracy from so many is about 0.7 %.
DRAWS = 4_096
#: The choice is made with fewer: all heads are judged on equal draws, whose error is much the same for all of them.
DRAWS_TO_CHOOSE = 512
#: Newton's steps for the scale; it is known well enough when its logarithm would change by less, or when nothing is
#: left to be won, in nats: classes that never touch have no best scale.
SEARCH_STEPS, SEARCH_ENDS, NOTHING_WON = 40, 1e-3, 1e-4
#: Where the search begins: logits of a head that means what it says lie about so far from the right one's.
USUAL_SIZE = 8.0
#: The scale is looked for between these.
SCALES = (1e-3, 1e3)


@dataclass(frozen=True, eq=False)
class Draws:
    """Logits [K, D] drawn for classes [D], which count with weights [D] that add up to 1."""

    logits: Floats
    labels: Ints
    weights: Floats

    @property
    def accuracy(self) -> float:
        """Share of them whose own logit is the largest."""
        return float(self.weights @ (self.logits.argmax(axis=0) == self.labels))


class Judge:
    """The normal approximation of a share: the same draws for every head, so that heads are compared on equal ones.

    Args:
        share: what heads are judged on.
        draws: in all.
    """

    def __init__(self, share: Share, draws: int = DRAWS) -> None:
        self._seen = np.flatnonzero(share.count)
        each = max(4, draws // len(self._seen))
        # The class means took one degree of freedom each; without this a small share looks better than it is.
        freedom = share.worth / max(share.worth - len(self._seen), 1.0)
        self._covariance, self._means = share.within_covariance * freedom, share.class_means[self._seen]
        self._noise = np.random.Generator(np.random.PCG64(0)).standard_normal((each, share.classes)).T
        self._labels = np.repeat(self._seen, each)
        self._weights = np.repeat(share.priors[self._seen] / each, each)

    def draws(self, weight: Floats, bias: Floats) -> Draws:
        """Logits of a head, drawn."""
        weight, bias = weight - weight.mean(axis=0), bias - bias.mean()  # what all classes share changes no prediction
        values, vectors = np.linalg.eigh(weight @ self._covariance @ weight.T)
        noise = (vectors * np.sqrt(np.maximum(values, 0.0))) @ self._noise
        logits = (weight @ self._means.T + bias[:, None])[:, :, None] + noise[:, None, :]
        return Draws(logits.reshape(len(weight), -1), self._labels, self._weights)


class Calibrated(NamedTuple):
    """How a head has to be scaled.

    Attributes:
        scale: of its logits, the best there is.
        loss: cross-entropy there, nats.
        size: how far its logits, so scaled, lie from the right one's.
    """

    scale: float
    loss: float
    size: float


def calibrated(draws: Draws, usual: float = USUAL_SIZE) -> Calibrated:
    """Newton's method within an interval that shrinks; the cross-entropy is convex in the scale.

    Logits are taken in units of how far they lie from the right one's. Four bytes are enough then, for a loss that is
    right to eight digits, in half the time.

    Args:
        draws: of the head.
        usual: size at which the search begins.
    """
    away = draws.logits - draws.logits[draws.labels, np.arange(len(draws.labels))]
    unit = max(math.sqrt(float((away * away).mean(axis=0) @ draws.weights)), 1e-300)
    away = (away / unit).astype(np.float32)
    largest = away.max(axis=0)
    below = away - largest  # so that no exponential is infinite
    each = np.empty_like(below)  # one for all steps: fresh memory of this size is dearer than what is computed in it
    low, high = SCALES[0] * unit, SCALES[1] * unit
    size = min(max(usual, low), high)
    for left in reversed(range(SEARCH_STEPS)):
        np.exp(np.multiply(np.float32(size), below, out=each), out=each)
        total = each.sum(axis=0)
        each *= away
        mean = each.sum(axis=0) / total
        each *= away
        slope = float(draws.weights @ mean)
        bend = float(draws.weights @ (each.sum(axis=0) / total - mean * mean))
        low, high = (size, high) if slope < 0 else (low, size)
        step = size - slope / bend if bend > 0 else math.nan
        following = step if low < step < high else math.sqrt(low * high)
        if abs(slope) * size < NOTHING_WON or abs(math.log(following / size)) < SEARCH_ENDS or not left:
            break
        size = following
    return Calibrated(size / unit, float(draws.weights @ (np.log(total) + size * largest)), size)
