"""What a device can tell of an answer by itself: signals in 0…1, each larger where the answer is more doubtful.

A release is measured by a `Gauge`. Its signals are those that a policy may name, the class that was answered, and where
the row lies: its features, or fewer numbers that stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.insights import Profile
from edgeloop.insights.observer import row_summaries
from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.summaries import feature_signs, flatten, is_numeric

#: Columns of the signals. What comes after them is the row's place.
COLUMNS = ("confidence", "entropy", "margin", "distance")
#: Column of the class that was answered.
CLASS = len(COLUMNS)
#: Columns before the place.
WIDTH = CLASS + 1
#: Features beyond this many are projected: a place has to be cheap to keep, and a head on it quick to fit.
MOST_PLACES = 64
#: Numbers beyond this are as good as infinite.
_LARGEST = 1e6
_LEAST = 1e-6


class Gauge:
    """Measures the answers of one release. It has no state that changes, and may be shared by threads.

    Args:
        profile: of the release, or None: then there are the signals of its probabilities alone.
        classes: K.
    """

    def __init__(self, profile: Profile | None, classes: int) -> None:
        self.profile, self.classes = profile, classes

    def signals(self, probabilities: Array, features: Array | None, inputs: Array | None) -> Floats:
        """What is measured of a batch of rows.

        A row with a number that is not finite is as hard as can be, and lies nowhere.

        Args:
            probabilities: [n, K].
            features: [n, F], or None for a model that does not expose them.
            inputs: the model's first input [n, …], or None.

        Returns:
            float64 [n, 5 + Z], finite: `COLUMNS`, each in 0…1, the class that was answered, and the row's place; Z is 0
            where nothing is known of it.
        """
        scores = probabilities.astype(np.float64)
        place = self._places(features, inputs, len(scores))
        finite: Array = np.isfinite(scores).all(axis=1) & (np.abs(place) <= _LARGEST).all(axis=1)  # type: ignore[assignment]
        safe = np.where(finite[:, None], np.nan_to_num(scores), 1 / self.classes)
        top = np.partition(safe, -2, axis=1)[:, -2:] if self.classes > 1 else np.stack([0 * safe[:, 0], safe[:, 0]], 1)
        measured = np.empty((len(safe), WIDTH))
        measured[:, 0] = self._doubt(top[:, 1])
        measured[:, 1] = -(safe * np.log(np.clip(safe, 1e-30, 1.0))).sum(axis=1) / np.log(max(self.classes, 2))
        measured[:, 2] = 1 - (top[:, 1] - top[:, 0])
        measured[:, 3] = self._distance(probabilities, features, inputs, finite)
        measured[:, :CLASS] = np.where(finite[:, None], np.clip(measured[:, :CLASS], 0.0, 1.0), 1.0)
        measured[:, CLASS] = safe.argmax(axis=1)
        return np.concatenate([measured, np.where(finite[:, None], place, 0.0)], axis=1)

    def _doubt(self, confidence: Floats) -> Floats:
        calibration = None if self.profile is None else self.profile.calibration
        return 1 - (confidence if calibration is None else calibration.chance(confidence))

    def _distance(self, probabilities: Array, features: Array | None, inputs: Array | None, finite: Array) -> Floats:
        """0 within the familiar distance of the class that was answered; 1 - 1/d² beyond, d² being in units of it."""
        found = np.zeros(len(probabilities))
        calibration = None if self.profile is None else self.profile.calibration
        if self.profile is None or calibration is None or (familiar := calibration.familiar) is None:
            return found
        rows = row_summaries(
            self.profile,
            None if inputs is None else inputs[finite],
            probabilities[finite],
            None if features is None else features[finite],
        )
        places = rows.places(familiar.width)
        if places is not None and len(rows.top) == int(finite.sum()):
            found[finite] = 1 - 1 / np.maximum(familiar.distance(places, rows.top), 1.0)
        return found

    def _places(self, features: Array | None, inputs: Array | None, count: int) -> Floats:
        """Features, or the numbers of an input without any; float64 [n, Z], Z ≤ `MOST_PLACES`."""
        known = features if features is not None else inputs
        if known is None or not is_numeric(known):
            return np.zeros((count, 0))
        rows = flatten(known).astype(np.float64)
        if rows.shape[1] > MOST_PLACES:
            seed = 0 if self.profile is None else self.profile.seed
            with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite are found by the caller
                rows = rows @ feature_signs(rows.shape[1], MOST_PLACES, seed).T
        return np.asarray(rows)


def told(signals: Floats, names: Sequence[str]) -> Floats:
    """Hardness by the signals that are named, before anything was learned: the worst of them; float64 [n] in 0…1."""
    columns = [COLUMNS.index(name) for name in names if name in COLUMNS]
    return np.asarray(signals[:, columns].max(axis=1)) if columns else np.zeros(len(signals))


def log_odds(chance: Floats) -> Floats:
    """Log of h / (1 - h), of chances at least 1e-6 from 0 and 1."""
    inside = np.clip(chance, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def from_log_odds(odds: Floats) -> Floats:
    """The inverse of :func:`log_odds`."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -40.0, 40.0))))
