"""What audits say: labels of answers that were drawn at random, apart from those that somebody chose to label."""

from __future__ import annotations

import numpy as np

from edgeloop.insights.aspects.base import ROUNDING, Arrays, Aspect, Labels, Rows, predictions_of, refuse
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.aspects.expected import by_confidence
from edgeloop.insights.binning import count_bins
from edgeloop.insights.sizes import ArraySpec, Sizes

#: Rows of ``audits``: answers drawn, of them those labelled, of them those that were right.
DRAWN, LABELLED, RIGHT = range(3)
#: Places in ``audit_chances``: of the labelled ones Σ p, Σ p², and Σ p of those that were right.
CHANCE, SQUARE, CHANCE_RIGHT = range(3)


class Audits(Aspect):
    """``audits`` int64 [3, B], by confidence in the profile's bins; ``audit_chances`` float64 [3] of the chances p.

    A label of an audit is in no other count of labels but ``feedback``, and in the head statistics: it is a label like
    any other for training, and the only one that was drawn at random for measuring.
    """

    name = "audits"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"audits": ArraySpec((3, sizes.bins), "int64"), "audit_chances": ArraySpec((3,), "float64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if rows.drawn is not None and rows.drawn.any():
            edges = rows.profile.edges.of("confidence")
            into["audits"][DRAWN] += count_bins(rows.confidence[:, rows.drawn], edges)[0]

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        if labels.confidence is None or not labels.audited.any():
            return
        into["audits"][LABELLED:] += by_confidence(labels, labels.audited)
        if (calibration := labels.profile.calibration) is not None:
            chance = calibration.chance(labels.confidence[labels.audited])
            right = (labels.predicted == labels.labels)[labels.audited]
            into["audit_chances"][:] += (chance.sum(), np.dot(chance, chance), chance[right].sum())

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        (drawn, labelled, right), (chance, square, of_right) = arrays["audits"].sum(axis=1), arrays["audit_chances"]
        refuse(drawn > predictions_of(arrays), "more answers were drawn for an audit than predictions made")
        refuse((arrays["audits"][RIGHT] > arrays["audits"][LABELLED]).any(), "more audits were right than labelled")
        refuse(labelled > arrays["counts"][FEEDBACK], "more audits were labelled than labels given")
        most = labelled * (1 + ROUNDING)
        refuse(
            not 0 <= square <= chance * (1 + ROUNDING) <= most * (1 + ROUNDING)
            or not 0 <= of_right <= min(chance, right) * (1 + ROUNDING),
            "the chances of the audited answers are larger than so many audits allow",
        )
