"""Where the features lie: fixed random projections of them."""

from __future__ import annotations

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, predictions_of, refuse
from edgeloop.insights.binning import count_bins
from edgeloop.insights.sizes import ArraySpec, Sizes


class Projections(Aspect):
    """``projections`` int64 [P, B]: sign projections of the features, in the profile's equal-mass bins."""

    name = "projections"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"projections": ArraySpec((sizes.projections, sizes.bins), "int64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if rows.projected is not None:
            into["projections"][:] += count_bins(rows.projected, rows.edges.projections)

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        sums = arrays["projections"].sum(axis=1)
        refuse((sums != sums[:1]).any(), "the projections' histograms hold different numbers of rows")
        refuse((sums > predictions_of(arrays)).any(), "a projection's histogram holds more rows than predictions")
