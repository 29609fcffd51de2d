"""Digits that drift: clean windows and drifted ones, each with a validation set of its own, and what a network says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

Array = npt.NDArray[Any]
Spoil = Callable[[Array, np.random.Generator], Array]

#: The network learns from few, so that many are left that it has not seen: 1,497.
TRAINING, VALIDATION = 300, 400


def turned(degrees: float) -> Spoil:
    return lambda x, rng: rotate(x.reshape(-1, 8, 8), degrees, axes=(2, 1), reshape=False, order=1).reshape(-1, 64)


def dimmed(light: float) -> Spoil:
    return lambda x, rng: x * light


def noisy(sigma: float) -> Spoil:
    return lambda x, rng: np.clip(x + rng.normal(0, sigma, x.shape), 0, 1)


def dead(column: int) -> Spoil:
    def spoil(x: Array, rng: np.random.Generator) -> Array:
        images = x.reshape(-1, 8, 8).copy()
        images[:, :, column] = 0
        return images.reshape(-1, 64)

    return spoil


@dataclass(frozen=True)
class Drift:
    """One way of drifting: what happens to the images, and how much more often the classes 0 to 4 come."""

    kind: str
    grade: str
    spoil: Spoil = field(default=lambda x, rng: x)
    odds: float = 1.0


CLEAN = Drift("clean", "")
DRIFTS = (
    *(Drift("rotation", f"{d}°", turned(d)) for d in (4, 7, 12)),
    *(Drift("brightness", f"× {v}", dimmed(v)) for v in (0.96, 0.92, 0.85)),
    *(Drift("noise", f"σ {v}", noisy(v)) for v in (0.03, 0.06, 0.12)),
    *(Drift("class prior", f"odds {v}", odds=v) for v in (1.5, 2.0, 3.0)),
    *(Drift("dead column", f"column {c}", dead(c)) for c in (0, 6, 3)),
)


@dataclass(frozen=True)
class Trial:
    """A validation set and a window of other digits: images [N, 64] each."""

    normal: Array
    seen: Array


class Digits:
    """All digits, and a network that has learnt from a few of them."""

    def __init__(self) -> None:
        raw = load_digits()
        order = np.random.default_rng(7).permutation(len(raw.target))
        x, y = (raw.data[order] / 16.0).astype(np.float32), raw.target[order]
        self._network = MLPClassifier((128, 64), max_iter=300, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._network.fit(x[:TRAINING], y[:TRAINING])
        self._x, self._y = x[TRAINING:], y[TRAINING:]
        self.accuracy = float((self._network.predict(self._x) == self._y).mean())

    def trials(self, drift: Drift, rows: int, count: int, seed: int) -> Iterator[Trial]:
        """Each is a new split, so that clean windows are clean and independent."""
        rng = np.random.default_rng((seed, rows))
        for _ in range(count):
            order = rng.permutation(len(self._y))
            normal, rest = order[:VALIDATION], order[VALIDATION:]
            chosen = rest[:rows]
            if drift.odds != 1.0:
                weight = np.where(self._y[rest] < 5, drift.odds, 1.0)
                chosen = rng.choice(rest, rows, replace=False, p=weight / weight.sum())
            yield Trial(self._x[normal], drift.spoil(self._x[chosen], rng).astype(np.float32))

    def answers(self, x: Array) -> tuple[Array, Array]:
        """Features [N, 64] and probabilities [N, 10]."""
        hidden = x
        for weight, bias in zip(self._network.coefs_[:-1], self._network.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        scores = hidden @ self._network.coefs_[-1] + self._network.intercepts_[-1]
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden.astype(np.float32), (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
