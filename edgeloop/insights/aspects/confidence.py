"""How sure the model was."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes


class Confidence(Histogram):
    """``confidence`` int64 [B]: the largest probability of each prediction."""

    name = "confidence"
    single = True
    follows_head = True

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return 1

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return "confidence"

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return rows.confidence
