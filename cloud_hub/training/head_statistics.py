"""Head statistics as a trainer reads them: counts, class sums and Gram matrix of labelled features, in two shares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Window
from edgeloop.insights.aspects.head import SHARES, unpack_gram

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class HeadError(ValueError):
    """A head cannot be fitted or judged from these statistics; the message says what they lack."""


@dataclass(frozen=True, eq=False)
class Share:
    """Sums over labelled rows x with class k.

    Attributes:
        count: rows per class, int64 [K].
        sums: Σ x per class, float64 [K, F].
        gram: Σ x xᵀ over all classes, float64 [F, F].
    """

    count: Ints
    sums: Floats
    gram: Floats

    @property
    def total(self) -> int:
        """Rows, n."""
        return int(self.count.sum())

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
        return self.count / self.total

    @property
    def mean(self) -> Floats:
        """Mean of all rows, float64 [F]."""
        return np.asarray(self.sums.sum(axis=0) / self.total)

    @property
    def class_means(self) -> Floats:
        """Mean of each class, float64 [K, F]; 0 for a class without rows."""
        return np.asarray(self.sums / np.maximum(self.count, 1)[:, None])

    @property
    def total_covariance(self) -> Floats:
        """Covariance of all rows about their mean, divided by n: float64 [F, F]."""
        mean = self.mean
        return np.asarray(self.gram / self.total - np.outer(mean, mean))

    @property
    def within_covariance(self) -> Floats:
        """Covariance about the class means, pooled, divided by n: float64 [F, F]."""
        means = self.class_means
        return np.asarray((self.gram - (means * self.count[:, None]).T @ means) / self.total)

    @property
    def cross_covariance(self) -> Floats:
        """Covariance of one-hot labels with the features, divided by n: float64 [K, F]."""
        return np.asarray(self.sums / self.total - np.outer(self.priors, self.mean))

    def __add__(self, other: Share) -> Share:
        """The statistics of both sets of rows together."""
        return Share(self.count + other.count, self.sums + other.sums, self.gram + other.gram)

    @classmethod
    def of_rows(cls, features: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], classes: int) -> Share:
        """Statistics of rows that are at hand.

        Args:
            features: [N, F], finite.
            labels: [N], 0 … classes-1.
            classes: K.
        """
        exact = features.astype(np.float64)
        one_hot = np.eye(classes)[labels]
        return cls(np.bincount(labels, minlength=classes).astype(np.int64), one_hot.T @ exact, exact.T @ exact)


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
        """SHA-256 of all numbers, little-endian, count, sums and gram of either share: 64 hex digits."""
        digest = hashlib.sha256()
        for share in (self.fit, self.holdout):
            for array, dtype in ((share.count, "<i8"), (share.sums, "<f8"), (share.gram, "<f8")):
                digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
        return digest.hexdigest()

    @property
    def all(self) -> Share:
        """Both shares together."""
        return self.fit + self.holdout

    def __add__(self, other: HeadStatistics) -> HeadStatistics:
        """The statistics of both sets of rows together."""
        return HeadStatistics(self.fit + other.fit, self.holdout + other.holdout)


def _share(window: Window, share: str, width: int) -> Share:
    parts = (window.arrays[f"head_{share}_{part}"] for part in ("count", "sum", "gram"))
    count, sums, gram = parts
    return Share(count, sums, unpack_gram(gram, width))
