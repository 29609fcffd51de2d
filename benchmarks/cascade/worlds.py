"""A deliberately small edge model, a large teacher, and a drift that the teacher survives; on scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neural_network import MLPClassifier

from edgeloop.cascade.hardness import Gauge
from edgeloop.insights import Profile
from edgeloop.insights.calibrating import calibrated, fit
from edgeloop.insights.calibration import Calibration
from examples.cascade.models import train_edge, train_teacher
from examples.digits.data import Digits, load

Array = npt.NDArray[Any]
CLASSES = 10


@dataclass(frozen=True)
class Head:
    """A last layer on the edge model's features."""

    weight: Array
    bias: Array

    def __call__(self, features: Array) -> Array:
        """Probabilities float64 [n, K]."""
        logits = features @ self.weight.T + self.bias
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Cast:
    """Who plays in one split of the digits.

    Attributes:
        digits: the splits.
        edge: the small model.
        head: its first last layer.
        gauge: of the first release.
        teacher: the large model.
        sure: what the teacher's confidence means, by its validation.
    """

    digits: Digits
    edge: MLPClassifier
    head: Head
    gauge: Gauge
    teacher: MLPClassifier
    sure: Calibration

    def features(self, images: Array) -> Array:
        """The edge's last hidden layer, float64 [n, F]."""
        return np.maximum(images @ self.edge.coefs_[0] + self.edge.intercepts_[0], 0.0)

    def taught(self, images: Array) -> tuple[Array, Array]:
        """The teacher's classes int64 [n], and its calibrated confidence float64 [n]."""
        scores = self.teacher.predict_proba(images)
        return scores.argmax(axis=1), self.sure.chance(scores.max(axis=1))


def cast(seed: int) -> Cast:
    """Train both models on the same 650 digits, the teacher on many views of each."""
    digits = load(seed)
    edge, teacher = train_edge(digits.train, seed), train_teacher(digits.train, seed)
    head, held = Head(edge.coefs_[1].T, edge.intercepts_[1]), digits.validation
    features = np.maximum(held.x @ edge.coefs_[0] + edge.intercepts_[0], 0.0).astype(np.float32)
    scores = head(features).astype(np.float32)
    profile = calibrated(Profile.fit(held.x, scores, features), held.x, scores, features, held.y)
    said = teacher.predict_proba(held.x)
    sure = fit(said.max(axis=1), said.argmax(axis=1), held.y, classes=CLASSES)
    return Cast(digits, edge, head, Gauge(profile, CLASSES), teacher, sure)
