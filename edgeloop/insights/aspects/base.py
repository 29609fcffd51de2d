"""What an aspect is: a group of arrays in a window, how rows and labels are added to it, and what must hold in it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.sizes import Array, ArraySpec, Floats, Ints, Sizes
from edgeloop.insights.summaries import feature_signs
from edgeloop.records import dataclass

if TYPE_CHECKING:
    from edgeloop.insights.profile import Profile

#: Larger numbers in features or inputs count as not finite: then every sum below stays finite, also after merging.
MAX_VALUE = 1e30
#: A label counts for no more than this many.
MAX_WEIGHT = 1e4
#: Room for the rounding of float64 sums in comparisons of sums with one another.
ROUNDING = 1e-6

Arrays = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch of answered predictions; only the finite rows, but for ``count`` and the times.

    Attributes:
        profile: what normal is; its edges, its seed and what the first input is.
        count: all rows, also those left out.
        nonfinite: rows that hold a number that is not finite.
        top: predicted class, int64 [n].
        confidence: its probability, float64 [1, n].
        probabilities: [n, K].
        inputs: the first input, [n, …], or None: then nothing is known of it.
        summaries: of the first input, float64 [I, n]; None when it is not known or not numeric.
        features: float64 [n, F], or None.
        latency_ns: int64 [N], or [0]: not measured.
        queue_ns: of it, waiting to run; int64 [N] or [0].
        run_ns: of it, the run; int64 [N] or [0].
        clip: no feature vector is longer than this in a sum of vectors.
        drawn: bool [n], which rows were drawn for an audit; None: none.
    """

    profile: Profile
    count: int
    nonfinite: int
    top: Ints
    confidence: Floats
    probabilities: Array
    inputs: Array | None
    summaries: Floats | None
    features: Floats | None
    latency_ns: Ints
    queue_ns: Ints
    run_ns: Ints
    clip: float = math.inf
    drawn: Array | None = None

    @property
    def bounded(self) -> Floats | None:
        """The features as they go into sums: none longer than ``clip``."""
        return None if self.features is None else shortened(self.features, self.clip)

    @cached_property
    def projected(self) -> Floats | None:
        """Projections of the features, float64 [P, n], or None."""
        if self.features is None:
            return None
        schema = self.profile.schema
        return np.asarray(feature_signs(schema.features, schema.projections, self.profile.seed) @ self.features.T)

    def places(self, width: int) -> Floats | None:
        """Where each row lies, in few numbers: the projections of its features, then the summaries of its input.

        Args:
            width: Z, as one of `Sizes.place_widths`: with one of the two, or both.

        Returns:
            float64 [Z, n], or None where a part is not known.
        """
        sizes = self.profile.schema
        parts = [self.projected] if sizes.projections else []
        if width > sizes.projections:
            parts.append(self.summaries)
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known and len(known) == len(parts) else None


@dataclass(frozen=True, eq=False)
class Labels:
    """A batch of feedback.

    Attributes:
        profile: of the release that predicted.
        predicted: int64 [M].
        labels: the true classes, int64 [M].
        features: float64 [m, F] of the labels whose features are known and finite, or None.
        known: bool [M], which labels those are.
        holdout: bool [M].
        clip: no feature vector is longer than this.
        audited: bool [M], which labels are of answers that were drawn for an audit.
        confidence: of the answers, float64 [M], or None: not known.
        weights: of each in the head statistics, float64 [M], 1…`MAX_WEIGHT`.
    """

    profile: Profile
    predicted: Ints
    labels: Ints
    features: Floats | None
    known: Array
    holdout: Array
    audited: Array
    confidence: Floats | None
    clip: float = math.inf
    weights: Floats = field(default_factory=lambda: np.ones(0))


class Aspect(ABC):
    """One group of arrays. An aspect has no state: all of it is in the arrays, so that windows merge by addition."""

    name: str

    @abstractmethod
    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """Names and shapes of the arrays."""

    def observe(self, into: Arrays, rows: Rows) -> None:  # noqa: B027 - most aspects watch one of the two only
        """Add predictions to the arrays, in place."""

    def feedback(self, into: Arrays, labels: Labels) -> None:  # noqa: B027
        """Add labels to the arrays, in place."""

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """What no honest observer can have made; the arrays are already finite, and counts not negative.

        Args:
            arrays: of one window; or of many, each with one more axis in front, [M, …].

        Returns:
            (whether it is so, in words): a bool, or bool [M, …] with one more axis than for one window.
        """
        return ()

    def check(self, arrays: Arrays) -> None:
        """Refuse what is `broken`. An aspect that cannot say that of many windows at once has a check of its own.

        Raises:
            InsightsError: the arrays contradict one another.
        """
        for broken, what in self.broken(arrays):
            refuse(np.asarray(broken).any(), what)

    @property
    def side_by_side(self) -> bool:
        """Whether `broken` says it all, so that many windows can be checked at once."""
        return type(self).check is Aspect.check


def refuse(condition: object, what: str) -> None:
    """Raise if ``condition`` holds.

    Raises:
        InsightsError: with ``what`` contradicts what.
    """
    if condition:
        raise InsightsError(f"the window contradicts itself: {what}. Drop it; its device counts wrongly or lies")


def shortened(vectors: Floats, most: float) -> Floats:
    """Vectors [n, F] of the same directions, none longer than ``most`` (> 0)."""
    if math.isinf(most) or not vectors.size:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(vectors * np.minimum(1.0, most / np.maximum(lengths, most))[:, None])


def predictions_of(arrays: Arrays) -> Ints:
    """Predictions that a window counts: int64 [], or [M] of many."""
    return np.asarray(arrays["counts"][..., 0])


def broken_moments(counts: Ints, sums: Floats, squares: Floats, what: str) -> Iterable[tuple[Any, str]]:
    """Whether so many numbers within ±`MAX_VALUE` cannot have these sums [C], or [M, C], and sums of squares.

    By Cauchy and Schwarz (Σx)² ≤ n Σx².
    """
    count = counts[..., None].astype(np.float64)
    yield np.abs(sums) > count * MAX_VALUE, f"a sum of the {what} is beyond its values of {MAX_VALUE:g} at most"
    yield squares > count * MAX_VALUE**2, f"a sum of squares of the {what} is beyond what its values give"
    yield squares < 0, f"a sum of squares of the {what} is negative"
    yield sums * sums > count * squares * (1 + ROUNDING), f"the sums of the {what} are larger than their squares allow"
