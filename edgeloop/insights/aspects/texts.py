"""What the texts were like: how long, and how much of them is known from the validation data."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes
from edgeloop.insights.words import text_measures, token_measures

TITLES = ("text length", "known vocabulary")


class Texts(Histogram):
    """``texts`` int64 [2, B], or [0, B]: the measures that `TITLES` names, of the first input."""

    name = "texts"
    #: The vocabulary is that of the other rows: to the rows that it was learned from nothing is unknown.
    reference_rows = slice(1, None, 2)

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.texts

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return TITLES[row]

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        form = rows.profile.form
        if rows.inputs is None or not rows.profile.schema.texts:
            return None
        if form.kind == "tokens":
            return token_measures(rows.inputs, form.pad, form.vocabulary)
        return text_measures(rows.inputs, form.vocabulary)
