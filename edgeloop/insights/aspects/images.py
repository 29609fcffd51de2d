"""What the pictures were like: their light, their contrast and their sharpness."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes

TITLES = ("image brightness", "image contrast", "image sharpness")


class Images(Histogram):
    """``images`` int64 [3, B], or [0, B]: the measures that `TITLES` names, of the first input."""

    name = "images"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.images

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return TITLES[row]

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return None
