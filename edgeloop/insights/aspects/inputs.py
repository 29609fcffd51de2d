"""What the inputs were like."""

from __future__ import annotations

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, predictions_of, refuse
from edgeloop.insights.binning import count_bins
from edgeloop.insights.sizes import ArraySpec, Sizes


class Inputs(Aspect):
    """``inputs`` int64 [I, B]: each summary of the first input, in the profile's equal-mass bins."""

    name = "inputs"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"inputs": ArraySpec((sizes.inputs, sizes.bins), "int64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if rows.inputs is not None:
            into["inputs"][:] += count_bins(rows.inputs, rows.edges.inputs)

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        sums = arrays["inputs"].sum(axis=1)
        refuse((sums != sums[:1]).any(), "the input histograms hold different numbers of rows")
        refuse((sums > predictions_of(arrays)).any(), "an input histogram holds more rows than there are predictions")
