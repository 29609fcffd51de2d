"""How many predictions, errors, labels, escalations and non-finite rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeloop.insights.aspects.base import Arrays, Aspect, Labels, Rows
from edgeloop.insights.sizes import ArraySpec, Sizes

PREDICTIONS, ERRORS, FEEDBACK, ESCALATIONS, NONFINITE = range(5)
NAMES = ("predictions", "errors", "feedback", "escalations", "nonfinite")


class Counts(Aspect):
    """``counts`` int64 [5], in the order of `NAMES`."""

    name = "counts"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"counts": ArraySpec((len(NAMES),), "int64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        into["counts"][PREDICTIONS] += rows.count
        into["counts"][NONFINITE] += rows.nonfinite

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        into["counts"][FEEDBACK] += len(labels.labels)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        counts = arrays["counts"]
        yield counts[..., NONFINITE] > counts[..., PREDICTIONS], "more rows are not finite than there are predictions"
