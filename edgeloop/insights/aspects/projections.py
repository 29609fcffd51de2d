"""Where the features lie: fixed random projections of them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes


class Projections(Histogram):
    """``projections`` int64 [P, B]: sign projections of the features."""

    name = "projections"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.projections

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return f"projection {row}"

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return rows.projected
