"""What a variant decides on the validation set: pure functions of probabilities and true classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
#: Bins of the reliability diagram, as in Guo et al., On Calibration of Modern Neural Networks (2017).
BINS = 15
#: Quantile of the normal distribution for an interval of 95 %.
_Z = 1.959964


@dataclass(frozen=True)
class PerClass:
    """Of one class.

    Attributes:
        label: its name.
        rows: of the validation set that are of it.
        recall: share of these that are found; None without rows.
        precision: share of the rows called so that are of it; None where nothing is called so.
    """

    label: str
    rows: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Bin:
    """Rows whose largest probability lies in a range: how many, how sure the model was, how often it was right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def confusion(predicted: Labels, truth: Labels, classes: int) -> Labels:
    """Counts int64 [K, K]: row the true class, column the one that was said."""
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (truth, predicted), 1)
    return found


def per_class(matrix: Labels, labels: tuple[str, ...]) -> tuple[PerClass, ...]:
    """Recall and precision of each class, from the confusion matrix."""
    right, true, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return tuple(
        PerClass(
            label,
            int(true[k]),
            float(right[k] / true[k]) if true[k] else None,
            float(right[k] / said[k]) if said[k] else None,
        )
        for k, label in enumerate(labels)
    )


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Interval of 95 % of a share that was seen in so many rows (Wilson 1927)."""
    if not rows:
        return 0.0, 1.0
    square = _Z * _Z / rows
    middle = (share + square / 2) / (1 + square)
    reach = _Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows)) / (1 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def reliability(probabilities: Array, truth: Labels) -> tuple[tuple[Bin, ...], float]:
    """The bins that are not empty, and the expected calibration error: the mean gap of the bins, by their rows.

    Args:
        probabilities: [N, K].
        truth: [N].
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    places = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for i in range(BINS):
        inside = places == i
        if rows := int(inside.sum()):
            confidence, accuracy = float(sure[inside].mean()), float(right[inside].mean())
            bins.append(Bin(i / BINS, (i + 1) / BINS, rows, confidence, accuracy))
            error += rows / len(truth) * abs(confidence - accuracy)
    return tuple(bins), error
