"""A deliberately small edge model, a large teacher, and a drift that the teacher survives; on scikit-learn's digits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from edgeloop.cascade.hardness import Gauge
from edgeloop.insights import Profile
from edgeloop.insights.calibrating import calibrated, fit
from edgeloop.insights.calibration import Calibration
from examples.digits.data import Digits, Slip, Split, load

Array = npt.NDArray[Any]
CLASSES = 10
#: 64 → 64 → 10, stopped early: 4,810 numbers. The teacher, 64 → 256 → 128 → 10, has 50,826.
SMALL, LARGE = (64,), (256, 128)
#: The camera turns by 25° and is dimmed to 60 %. Its noise is half that of the other demo's: there the teacher's own
#: answers fall to 0.88.
SLIPPED = Slip("slipped", degrees=25.0, light=0.6, noise=0.05)
#: Worlds that the teacher was shown, and the edge was not: none of them is the drift itself.
WORLDS_SHOWN = 24


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        edge = MLPClassifier(SMALL, alpha=1e-3, max_iter=40, random_state=seed).fit(digits.train.x, digits.train.y)
        shown = views(digits.train, seed)
        settings = {"max_iter": 25, "learning_rate_init": 2e-3, "batch_size": 400}
        teacher = MLPClassifier(LARGE, alpha=1e-3, random_state=0, **settings).fit(shown.x, shown.y)
    head, held = Head(edge.coefs_[1].T, edge.intercepts_[1]), digits.validation
    features = np.maximum(held.x @ edge.coefs_[0] + edge.intercepts_[0], 0.0).astype(np.float32)
    scores = head(features).astype(np.float32)
    profile = calibrated(Profile.fit(held.x, scores, features), held.x, scores, features, held.y)
    said = teacher.predict_proba(held.x)
    sure = fit(said.max(axis=1), said.argmax(axis=1), held.y, classes=CLASSES)
    return Cast(digits, edge, head, Gauge(profile, CLASSES), teacher, sure)


def views(split: Split, seed: int) -> Split:
    """The split as many cameras would see it: turned by up to 32° either way, dimmed, in glare, with noise."""
    rng, seen = np.random.default_rng(seed), [split]
    for number in range(WORLDS_SHOWN):
        slip = Slip(
            "shown",
            degrees=float(-32 + 64 * (number + rng.random()) / WORLDS_SHOWN),
            light=float(rng.uniform(0.5, 1.0)),
            offset=float(max(0.0, rng.uniform(-0.4, 0.4))),
            noise=float(rng.uniform(0.0, 0.1)),
        )
        seen.append(slip(split, seed=1000 * seed + number))
    return Split(np.concatenate([one.x for one in seen]), np.concatenate([one.y for one in seen]))
