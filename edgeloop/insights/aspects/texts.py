"""What the texts were like: how long, and how much of them is known from the validation data."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes

TITLES = ("text length", "known words")


class Texts(Histogram):
    """``texts`` int64 [2, B], or [0, B]: the measures that `TITLES` names, of the first input."""

    name = "texts"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.texts

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return TITLES[row]

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return None
