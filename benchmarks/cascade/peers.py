"""What others escalate by: the hard-example rules of KubeEdge Sedna's joint inference, and chance.

Written anew from Sedna's documentation and ``lib/sedna/algorithms/hard_example_mining`` (Apache-2.0; read 2026-11-26).
Its rules answer hard or not by a threshold; what is compared with a threshold is given here, so that every share can be
had. Sedna names boxes; a classification is one box whose score is that of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def cross_entropy(probabilities: Array) -> Array:
    """``CrossEntropyFilter``: hard where 1 + Σ p ln p / ln K is below the threshold; p = 0 adds 0, and is no error."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -(1 + (probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1]))


def threshold(probabilities: Array) -> Array:
    """``ThresholdFilter``: hard where the mean score of the boxes is below the threshold."""
    return -probabilities.max(axis=1)


def ibt(probabilities: Array) -> Array:
    """``IBTFilter``: hard where the share of boxes whose score is at most ``threshold_box`` is 1 - ``threshold_img``.

    The boxes of a classification are its classes above chance; the share is that of boxes with a score of at most 0.5,
    and ties, which are many, are broken by the best score.
    """
    boxes = probabilities > 1 / probabilities.shape[1]
    weak = (boxes & (probabilities <= 0.5)).sum(axis=1) / np.maximum(boxes.sum(axis=1), 1)
    return weak - 1e-3 * probabilities.max(axis=1)


def chance(probabilities: Array) -> Array:
    """``RandomFilter``."""
    return np.random.default_rng(len(probabilities)).random(len(probabilities))


RULES: Mapping[str, Callable[[Array], Array]] = {
    "Sedna CrossEntropy": cross_entropy,
    "Sedna Threshold": threshold,
    "Sedna IBT": ibt,
    "random": chance,
}
