"""How many answers are expected to be right, by the calibration; and what the labels of chosen answers say of that."""

from __future__ import annotations

import numpy as np

from edgeloop.insights.aspects.base import ROUNDING, Arrays, Aspect, Labels, Rows, predictions_of, refuse
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.binning import count_bins
from edgeloop.insights.sizes import ArraySpec, Sizes

#: Places in ``expected_rows``: predictions with a chance, those whose distance is known, those that lie beyond the
#: familiar distance.
ROWS, PLACED, BEYOND = range(3)
#: Places in ``expected``: Σ p and Σ p (1 - p) of the chances p.
CHANCE, VARIANCE = range(2)
#: Rows of ``expected_labels``: labels, and those that say the answer was right.
LABELLED, RIGHT = range(2)


class Expected(Aspect):
    """``expected_rows`` int64 [3], ``expected`` float64 [2]; ``expected_labels`` int64 [2, B].

    The labels are those of ordinary feedback, by the confidence of their answers in the profile's bins: who chooses
    what is labelled seldom chooses at random, and most often by confidence. A release without calibration counts the
    labels alone.
    """

    name = "expected"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {
            "expected_rows": ArraySpec((3,), "int64"),
            "expected": ArraySpec((2,), "float64"),
            "expected_labels": ArraySpec((2, sizes.bins), "int64"),
        }

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        calibration = rows.profile.calibration
        if calibration is None:
            return
        chance = calibration.chance(rows.confidence[0])
        counted, sums = into["expected_rows"], into["expected"]
        counted[ROWS] += len(chance)
        sums[CHANCE] += chance.sum()
        sums[VARIANCE] += chance.sum() - np.dot(chance, chance)
        familiar = calibration.familiar
        if familiar is not None and (places := rows.places(familiar.width)) is not None:
            distance = familiar.distance(places, rows.top)
            counted[PLACED] += len(distance)
            counted[BEYOND] += np.count_nonzero(distance > 1)

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        chosen = ~labels.audited
        if labels.confidence is not None and chosen.any():
            into["expected_labels"][:] += by_confidence(labels, chosen)

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        counted, (chance, variance) = arrays["expected_rows"], arrays["expected"]
        labels = arrays["expected_labels"]
        refuse(counted[ROWS] > predictions_of(arrays), "more answers have a chance than predictions were made")
        refuse(not counted[BEYOND] <= counted[PLACED] <= counted[ROWS], "more answers lie beyond than were placed")
        most = counted[ROWS] * (1 + ROUNDING)
        refuse(not 0 <= chance <= most, "more answers are expected to be right than were given")
        refuse(
            not 0 <= variance * (1 - ROUNDING) <= chance * (1 - chance / max(most, 1)) + ROUNDING,
            "the expected answers vary more than chances can",
        )
        refuse((labels[RIGHT] > labels[LABELLED]).any(), "more labels say that the answer was right than were given")
        refuse(labels[LABELLED].sum() > arrays["counts"][FEEDBACK], "more labels are counted by confidence than given")


def by_confidence(labels: Labels, chosen: np.ndarray) -> np.ndarray:
    """Labels, and those that say the answer was right, by the confidence of their answers: int64 [2, B]."""
    assert labels.confidence is not None
    edges = labels.profile.edges.of("confidence")
    right = chosen & (labels.predicted == labels.labels)
    return np.concatenate([count_bins(labels.confidence[which][None], edges) for which in (chosen, right)])
