"""Calibration: how often an answer of a given confidence is right, and which rows that may be said of.

The *chance* is a map from confidence to the share of right answers, never falling. *Familiar* rows lie near the
validation rows of the class that was predicted: of other rows the chance says nothing. Both are fitted on the labelled
validation rows by `edgeloop.insights.calibrating`, which devices do not need.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.sizes import Array, Floats, Ints, Sizes
from edgeloop.records import dataclass

#: How the chance was drawn: a line in log odds, or steps.
METHODS = ("scaling", "isotonic")
SCALING, ISOTONIC = METHODS
#: Share of the validation rows that lie within the familiar distance.
FAMILIAR_SHARE = 0.95
#: A map with more points than this is none of ours.
MAX_KNOTS = 4096
#: Before the names of its tensors in the profile's reference file.
PREFIX = "calibration."
_HINT = "build the package again"


@dataclass(frozen=True, eq=False)
class Familiar:
    """Where the validation rows of each class lie, in a few numbers of each row.

    Attributes:
        centres: float64 [K, Z], or [1, Z]: one for all classes.
        whitening: float64 [Z, Z]; after it the rows of a class scatter equally in all directions, and `FAMILIAR_SHARE`
            of the validation rows are at most 1 from the centre of the class that was predicted.
    """

    centres: Floats
    whitening: Floats

    @property
    def width(self) -> int:
        """Z."""
        return len(self.whitening)

    def distance(self, places: Floats, top: Ints) -> Floats:
        """Squared distance of each row from the centre of its class; up to 1 it is familiar.

        Args:
            places: float64 [Z, n].
            top: classes, int64 [n].

        Returns:
            float64 [n].
        """
        away = places.T - (self.centres[top] if len(self.centres) > 1 else self.centres)
        whitened = away @ self.whitening
        return np.asarray(np.einsum("nz,nz->n", whitened, whitened))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the validation rows say about confidence.

    Attributes:
        knots: confidences, float64 [M], rising; between them the chance is a straight line.
        chances: of being right at them, float64 [M], above 0 and below 1, never falling.
        rows: validation rows.
        right: of them, those that were answered right.
        method: one of `METHODS`.
        familiar: None where nothing is known of a row but its scores.
    """

    knots: Floats
    chances: Floats
    rows: int
    right: int
    method: str = SCALING
    familiar: Familiar | None = None

    @property
    def accuracy(self) -> float:
        """Of the validation rows."""
        return self.right / self.rows

    def chance(self, confidence: Array) -> Floats:
        """Chance that answers of these confidences are right; float64, of the same shape."""
        return np.asarray(np.interp(confidence, self.knots, self.chances))

    def to_tensors(self) -> dict[str, Array]:
        """For the profile's reference file. float32 is enough, and every device fetches it with every new head."""
        facts = np.array([self.rows, self.right, METHODS.index(self.method)], np.int64)
        found: dict[str, Array] = {"facts": facts, "map": np.stack([self.knots, self.chances]).astype(np.float32)}
        if (familiar := self.familiar) is not None:
            found["familiar"] = np.concatenate([familiar.centres, familiar.whitening]).astype(np.float32)
        return {PREFIX + name: array for name, array in found.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], sizes: Sizes) -> Calibration | None:
        """What :meth:`to_tensors` gave, from anybody; None when there is nothing of it.

        Args:
            tensors: of a reference file; others than ours are left alone.
            sizes: of the release.

        Raises:
            InsightsError: it is no calibration, or none of this model.
        """
        own = {name.removeprefix(PREFIX): array for name, array in tensors.items() if name.startswith(PREFIX)}
        if not own:
            return None
        facts = own.get("facts", np.zeros(0))
        if facts.dtype != np.int64 or facts.shape != (3,):
            raise InsightsError(f"the calibration's facts are not three integers; {_HINT}")
        rows, right, method = facts.tolist()
        if not 0 <= right <= rows or rows == 0 or not 0 <= method < len(METHODS):
            raise InsightsError(f"the calibration's facts {facts.tolist()} contradict one another; {_HINT}")
        points = _floats(own, "map")
        if len(points) != 2 or not 1 <= points.shape[1] <= MAX_KNOTS:
            raise InsightsError(f"the calibration's map is {points.shape}; {_HINT}")
        knots, chances = points
        if (np.diff(points) < 0).any() or not 0 < chances[0] <= chances[-1] < 1:
            raise InsightsError(f"the calibration's map is not rising, or not between 0 and 1; {_HINT}")
        return cls(knots, chances, rows, right, METHODS[method], _familiar(own, sizes))


def _familiar(own: Mapping[str, Array], sizes: Sizes) -> Familiar | None:
    if "familiar" not in own:
        return None
    both = _floats(own, "familiar")
    width = both.shape[1]
    centres = len(both) - width
    if width not in sizes.place_widths or centres not in (1, sizes.classes):
        raise InsightsError(f"the calibration's centres and scatter are {both.shape}; {_HINT}")
    return Familiar(both[:centres], both[centres:])


def _floats(own: Mapping[str, Array], name: str) -> Floats:
    array = own.get(name)
    if array is None or array.dtype != np.float32 or array.ndim != 2 or not np.isfinite(array).all():
        raise InsightsError(f"the calibration's {name} is missing, or no finite matrix of float32; {_HINT}")
    return array.astype(np.float64)
