"""The one step at which a window gets its noise: before it enters the outbox, and never again.

A window's arrays are cut into *parts*, each with a known sensitivity: how far (in Euclid's sense) it moves when the
contents of one prediction, or of one label, are others. One part gets the share w of the window's budget and noise of
the standard deviation z · sensitivity / √w; the shares add up to 1. So the whole window is one Gaussian mechanism of
multiplier z, which is what the accountant counts.

=============  ============================================================================  ====================
part           what one prediction or label adds                                             sensitivity
=============  ============================================================================  ====================
one histogram  1 in one bin; another prediction: 1 in another bin                            √2
feature sum    a vector no longer than C                                                     2 C
its squares    a vector without negative numbers, no longer than C²                          √2 C²
head           1 in one class; a vector in its row; half of x xᵀ, a positive matrix          √2, 2 C, √2 C²
=============  ============================================================================  ====================

How many rows a histogram holds is exact: that is how much there was, not what it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum

import numpy as np

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.head import SHARES, packed_size, unpack_gram
from edgeloop.insights.aspects.privacy import all_clipped, mark_noised, mark_withheld
from edgeloop.insights.privacy import projection
from edgeloop.insights.privacy.noise import Noise, noised, system_noise
from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.sums import Sums
from edgeloop.insights.window import Window


class How(Enum):
    """What becomes of an aspect's arrays."""

    EXACT = "exact"
    """It says how much there was, or how the device is, and nothing of any prediction."""
    HISTOGRAMS = "histograms"
    """Counts whose last axis is a histogram: one prediction is in one bin of each."""
    MOMENTS = "moments"
    CONFUSION = "confusion"
    HEAD = "head"
    LEFT_OUT = "left out"
    """It says too much of few labels, or its sums would take a share of the budget that others need more."""


#: Aspect → how. What is not here is left out, so that a new aspect leaves no device by mistake; a test wants it here.
TREATMENT: Mapping[str, How] = {
    "counts": How.EXACT,
    "classes": How.HISTOGRAMS,
    "confidence": How.HISTOGRAMS,
    "entropy": How.HISTOGRAMS,
    "inputs": How.HISTOGRAMS,
    "images": How.HISTOGRAMS,
    "texts": How.HISTOGRAMS,
    "projections": How.HISTOGRAMS,
    "latency": How.HISTOGRAMS,
    "moments": How.MOMENTS,
    "confusion": How.CONFUSION,
    "head": How.HEAD,
    "health": How.EXACT,
    "privacy": How.EXACT,
    "expected": How.LEFT_OUT,
    "audits": How.LEFT_OUT,
}

#: Of the labels' half, what goes to the confusion matrix, and to the head's counts, class sums and Gram matrix.
_CONFUSION, _HEAD_COUNT, _HEAD_SUM, _HEAD_GRAM = 1, 1, 3, 3


def noise(window: Window, multiplier: float, clip: float | None, source: Noise = system_noise) -> Window:
    """A copy that may leave the device.

    Args:
        window: as it was counted; it is left as it is.
        multiplier: z > 0, from the budget's plan.
        clip: no feature vector was longer where the window says that it was clipped, or None when that is not known.
            What was not all clipped is left out.
        source: of the noise.
    """
    return _Noising(window, multiplier, clip, source).result()


def volume(window: Window) -> Window:
    """A copy that says how much there was, and nothing else: what is sent when the budget is spent."""
    bare = _bare(window)
    mark_withheld(bare.arrays, window.predictions)
    return bare


def _bare(window: Window) -> Window:
    """A copy with what is exact. Fields and arrays of a newer version are not known, so they stay here."""
    arrays = Sums(window.schema)
    for name, _ in _named(window, How.EXACT):
        arrays[name] = window.arrays[name].copy()
    return replace(window, arrays=arrays, extra={}, unknown={})


def _named(window: Window, how: How) -> Iterator[tuple[str, Array]]:
    """Arrays that have counted something, of the aspects that are treated so."""
    for aspect in ASPECTS:
        if TREATMENT.get(aspect.name, How.LEFT_OUT) is how:
            for name in aspect.arrays(window.schema):
                if name in window.arrays and window.arrays[name].any():
                    yield name, window.arrays[name]


class _Noising:
    """One window on its way: the parts, their shares of the budget, and what has become of them."""

    def __init__(self, window: Window, multiplier: float, clip: float | None, source: Noise) -> None:
        self._window, self._multiplier, self._clip, self._source = window, multiplier, clip, source
        self._histograms = dict(_named(window, How.HISTOGRAMS))
        answers, labels = all_clipped(window.arrays)
        self._moments = clip is not None and answers and bool(window.arrays["feature_squares"].any())
        self._confusion = dict(_named(window, How.CONFUSION))
        known = clip is not None and labels
        self._heads = [share for share in SHARES if known and window.arrays[f"head_{share}_count"].any()]
        self._answers = sum(_rows(array) for array in self._histograms.values()) + 2 * self._moments
        self._labels = _CONFUSION * bool(self._confusion)
        self._labels += (_HEAD_COUNT + _HEAD_SUM + _HEAD_GRAM) * bool(self._heads)
        self._into = _bare(window)

    def result(self) -> Window:
        """The noised window."""
        arrays = self._into.arrays
        deviation = self._deviation(math.sqrt(2), 1, self._answers)
        for name, array in self._histograms.items():
            arrays[name] = self._counts(array, deviation)
        mark_noised(arrays, self._window.predictions, deviation**2 if self._histograms else 0.0)
        if self._moments:
            self._add_moments()
        for name, array in self._confusion.items():
            deviation = self._deviation(math.sqrt(2), _CONFUSION, self._labels)
            arrays[name] = self._counts(array.reshape(1, -1), deviation).reshape(array.shape)
        for share in self._heads:
            self._add_head(share)
        return self._into

    def _deviation(self, sensitivity: float, weight: int, of: int) -> float:
        """Standard deviation for a part that has ``weight`` of its side's share; two sides have the same share."""
        sides = bool(self._answers) + bool(self._labels)
        return self._multiplier * sensitivity / math.sqrt(weight / max(of, 1) / max(sides, 1))

    def _counts(self, array: Array, deviation: float) -> Array:
        rows = array.reshape(-1, array.shape[-1])
        noisy = noised(rows, deviation, self._source)
        found = [projection.counts_with_total(row, int(exact.sum())) for row, exact in zip(noisy, rows, strict=True)]
        return np.stack(found).reshape(array.shape)

    def _add_moments(self) -> None:
        clip, arrays = self._length, self._window.arrays
        sums = noised(arrays["feature_sum"], self._deviation(2 * clip, 1, self._answers), self._source)
        deviation = self._deviation(math.sqrt(2) * clip * clip, 1, self._answers)
        squares = noised(arrays["feature_squares"], deviation, self._source)
        into, rows = self._into.arrays, self._window.predictions
        into["feature_sum"], into["feature_squares"] = projection.moments(sums, squares, rows, clip)

    def _add_head(self, share: str) -> None:
        clip, arrays, into = self._length, self._window.arrays, self._into.arrays
        deviations = {
            "count": self._deviation(math.sqrt(2), _HEAD_COUNT, self._labels),
            "sum": self._deviation(2 * clip, _HEAD_SUM, self._labels),
            "gram": self._deviation(math.sqrt(2) * clip * clip, _HEAD_GRAM, self._labels),
        }
        counts = self._counts(arrays[f"head_{share}_count"], deviations["count"])
        noisy = {part: noised(arrays[f"head_{share}_{part}"], deviations[part], self._source) for part in deviations}
        width = noisy["sum"].shape[1]
        sums, gram = projection.head(counts, noisy["sum"], unpack_gram(noisy["gram"], width), clip)
        into[f"head_{share}_count"], into[f"head_{share}_sum"] = counts, sums
        into[f"head_{share}_gram"] = _packed(gram)

    @property
    def _length(self) -> float:
        assert self._clip is not None  # the parts that need it are there only with it
        return self._clip


def _rows(array: Array) -> int:
    """Histograms in an array: its axes but the last."""
    return math.prod(array.shape[:-1])


def _packed(gram: Floats) -> Floats:
    width = len(gram)
    packed = np.empty(packed_size(width))
    start = 0
    for row in range(width):
        packed[start : start + width - row] = gram[row, row:]
        start += width - row
    return packed
