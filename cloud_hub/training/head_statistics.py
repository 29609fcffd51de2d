"""Head statistics as a trainer reads them: counts, class sums and Gram matrix of labelled features, in two shares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Window
from edgeloop.insights.aspects.head import PARTS, SHARES, unpack_gram

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class HeadError(ValueError):
    """A head cannot be fitted or judged from these statistics; the message says what they lack."""


@dataclass(frozen=True, eq=False)
class Share:
    """Sums over labelled rows x with class k and weight w.

    Attributes:
        count: rows per class, int64 [K]; never weighted.
        weight: Σ w per class, float64 [K].
        square: Σ w² per class, float64 [K].
        sums: Σ w x per class, float64 [K, F].
        gram: Σ w x xᵀ over all classes, float64 [F, F].
    """

    count: Ints
    weight: Floats
    square: Floats
    sums: Floats
    gram: Floats

    @property
    def total(self) -> int:
        """Rows, n."""
        return int(self.count.sum())

    @property
    def mass(self) -> float:
        """Σ w."""
        return float(self.weight.sum())

    @property
    def worth(self) -> float:
        """How many rows of one weight these are worth, (Σ w)² / Σ w² (Kish 1965); 0 for none."""
        square = float(self.square.sum())
        return self.mass**2 / square if square > 0 else 0.0

    @property
    def classes(self) -> int:
        """K."""
        return len(self.count)

    @property
    def features(self) -> int:
        """F."""
        return int(self.sums.shape[1])

    @property
    def priors(self) -> Floats:
        """Share of each class, float64 [K]."""
        return self.weight / self.mass

    @property
    def mean(self) -> Floats:
        """Mean of all rows, float64 [F]."""
        return np.asarray(self.sums.sum(axis=0) / self.mass)

    @property
    def class_means(self) -> Floats:
        """Mean of each class, float64 [K, F]; 0 for a class without rows."""
        return np.asarray(self.sums / np.where(self.weight > 0, self.weight, 1.0)[:, None])

    @property
    def total_covariance(self) -> Floats:
        """Covariance of all rows about their mean, divided by Σ w: float64 [F, F]."""
        mean = self.mean
        return np.asarray(self.gram / self.mass - np.outer(mean, mean))

    @property
    def within_covariance(self) -> Floats:
        """Covariance about the class means, pooled, divided by Σ w: float64 [F, F]."""
        means = self.class_means
        return np.asarray((self.gram - (means * self.weight[:, None]).T @ means) / self.mass)

    @property
    def cross_covariance(self) -> Floats:
        """Covariance of one-hot labels with the features, divided by Σ w: float64 [K, F]."""
        return np.asarray(self.sums / self.mass - np.outer(self.priors, self.mean))

    def __add__(self, other: Share) -> Share:
        """The statistics of both sets of rows together."""
        return Share(
            self.count + other.count,
            self.weight + other.weight,
            self.square + other.square,
            self.sums + other.sums,
            self.gram + other.gram,
        )

    def scaled(self, factor: float) -> Share:
        """The same rows with other weights, ``factor`` times what they were; how many there are is left as it is."""
        if factor == 1.0:
            return self
        return Share(self.count, factor * self.weight, factor**2 * self.square, factor * self.sums, factor * self.gram)

    def only(self, classes: Ints) -> Share:
        """The same rows as a share of some classes, in this order; no row is of another one."""
        return Share(self.count[classes], self.weight[classes], self.square[classes], self.sums[classes], self.gram)

    @classmethod
    def of_rows(
        cls,
        features: npt.NDArray[np.floating],
        labels: npt.NDArray[np.integer],
        classes: int,
        weights: Floats | None = None,
    ) -> Share:
        """Statistics of rows that are at hand.

        Args:
            features: [N, F], finite.
            labels: [N], 0 … classes-1.
            classes: K.
            weights: [N]; None: 1 each.
        """
        exact = features.astype(np.float64)
        w = np.ones(len(labels)) if weights is None else weights
        weighted = exact * w[:, None]
        one_hot = np.eye(classes)[labels]
        count = np.bincount(labels, minlength=classes).astype(np.int64)
        return cls(count, one_hot.T @ w, one_hot.T @ (w * w), one_hot.T @ weighted, weighted.T @ exact)


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """Both shares: what a head is fitted on, and what it is judged on."""

    fit: Share
    holdout: Share

    @classmethod
    def of_window(cls, window: Window) -> HeadStatistics:
        """The head statistics of a (merged) window.

        Raises:
            HeadError: the window has none, since its model does not expose the head's input or is too large.
        """
        width = window.arrays["head_fit_sum"].shape[1]
        if width == 0:
            raise HeadError(
                "these windows hold no head statistics: the model exposes no features, or has too many; "
                "build the package with a features output, or retrain with the `command` trainer"
            )
        return cls(*(_share(window, share, width) for share in SHARES))

    @property
    def labels(self) -> int:
        """Labelled rows in both shares."""
        return self.fit.total + self.holdout.total

    @property
    def sha256(self) -> str:
        """SHA-256 of all numbers, little-endian, in the order of a share's attributes: 64 hex digits."""
        digest = hashlib.sha256()
        for share in (self.fit, self.holdout):
            digest.update(np.ascontiguousarray(share.count, dtype="<i8").tobytes())
            for array in (share.weight, share.square, share.sums, share.gram):
                digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    @property
    def all(self) -> Share:
        """Both shares together."""
        return self.fit + self.holdout

    def __add__(self, other: HeadStatistics) -> HeadStatistics:
        """The statistics of both sets of rows together."""
        return HeadStatistics(self.fit + other.fit, self.holdout + other.holdout)

    def only(self, classes: Ints) -> HeadStatistics:
        """As :meth:`Share.only`."""
        return HeadStatistics(self.fit.only(classes), self.holdout.only(classes))

    def scaled(self, factor: float) -> HeadStatistics:
        """The same rows with ``factor`` times their weights."""
        return HeadStatistics(self.fit.scaled(factor), self.holdout.scaled(factor))


def _share(window: Window, share: str, width: int) -> Share:
    count, excess, sums, gram = (window.arrays[f"head_{share}_{part}"] for part in PARTS)
    weight, square = count + excess
    return Share(count, weight, square, sums, unpack_gram(gram, width))
