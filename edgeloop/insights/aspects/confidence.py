"""How sure the model was."""

from __future__ import annotations

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, refuse
from edgeloop.insights.binning import count_bins
from edgeloop.insights.sizes import ArraySpec, Sizes


class Confidence(Aspect):
    """``confidence`` int64 [B]: the largest probability of each prediction, in the profile's equal-mass bins."""

    name = "confidence"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"confidence": ArraySpec((sizes.bins,), "int64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        into["confidence"][:] += count_bins(rows.confidence, rows.edges.confidence[None])[0]

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        refuse(
            arrays["confidence"].sum() != arrays["classes"].sum(),
            "the confidence histogram and the class counts hold different numbers of predictions",
        )
