"""Of how much of a window the details were noised, or left out, before it left its device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from edgeloop.insights.aspects.base import Arrays, Aspect, Labels, Rows, predictions_of
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.sizes import ArraySpec, Sizes

#: Predictions in windows whose details carry noise; predictions of which there is their number alone; noised windows.
#: And, while a window is on its device: predictions and labels whose features went into sums clipped. They all have to
#: be, or no noise could hide one of them.
NOISED, WITHHELD, WINDOWS, CLIPPED, CLIPPED_LABELS = range(5)
#: No noise that anybody could use is larger: a standard deviation of 1e12 counts.
MAX_VARIANCE = 1e24


class Privacy(Aspect):
    """``privacy`` int64 [5] in the order above; ``privacy_variance`` float64 [1].

    The variance is that of the noise in one count of a histogram, added up over the noised windows, as variances of
    independent noise do: a reader knows how far chance alone may have moved a merged count.
    """

    name = "privacy"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"privacy": ArraySpec((5,), "int64"), "privacy_variance": ArraySpec((1,), "float64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if rows.clip < math.inf:
            into["privacy"][CLIPPED] += rows.count

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        if labels.clip < math.inf:
            into["privacy"][CLIPPED_LABELS] += len(labels.labels)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        marks, variance, predictions = arrays["privacy"], arrays["privacy_variance"][..., 0], predictions_of(arrays)
        private = marks[..., NOISED] + marks[..., WITHHELD]
        yield private > predictions, "more predictions are private than there are"
        yield marks[..., CLIPPED] > predictions, "more was clipped than was predicted"
        yield marks[..., CLIPPED_LABELS] > arrays["counts"][..., FEEDBACK], "more was clipped than was labelled"
        most = marks[..., WINDOWS] * MAX_VARIANCE
        yield (variance < 0) | (variance > most), "the noise is beyond what its windows can carry"


def mark_noised(into: Arrays, predictions: int, variance: float) -> None:
    """Say that a window's details carry noise, of this variance in one count of a histogram."""
    into["privacy"][[CLIPPED, CLIPPED_LABELS]] = 0  # of interest on the device alone
    into["privacy"][NOISED] += predictions
    into["privacy"][WINDOWS] += 1
    into["privacy_variance"][0] += variance


def mark_withheld(into: Arrays, predictions: int) -> None:
    """Say that a window has no details."""
    into["privacy"][[CLIPPED, CLIPPED_LABELS]] = 0
    into["privacy"][WITHHELD] += predictions


def all_clipped(arrays: Arrays) -> tuple[bool, bool]:
    """Whether the features of all predictions, and those of all labels, went into sums clipped."""
    marks, counts = arrays["privacy"], arrays["counts"]
    return bool(marks[CLIPPED] == predictions_of(arrays)), bool(marks[CLIPPED_LABELS] == counts[FEEDBACK])


def noise_variance(arrays: Arrays) -> float:
    """Variance of the noise in one count of a histogram of a (merged) window; 0.0 for an exact one."""
    return float(arrays["privacy_variance"][0])
