"""What the numbers of the inputs were like."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes


class Inputs(Histogram):
    """``inputs`` int64 [I, B]: each summary of the first input."""

    name = "inputs"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.inputs

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return input_names[row] if row < len(input_names) else f"input summary {row}"

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return rows.summaries
