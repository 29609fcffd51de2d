"""How often each class was predicted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, predictions_of
from edgeloop.insights.sizes import ArraySpec, Sizes


class Classes(Aspect):
    """``classes`` int64 [K]: predictions by the class with the largest probability."""

    name = "classes"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {"classes": ArraySpec((sizes.classes,), "int64")}

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        into["classes"][:] += np.bincount(rows.top, minlength=len(into["classes"]))

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        yield (
            arrays["classes"].sum(axis=-1) > predictions_of(arrays),
            "more classes were predicted than predictions made",
        )
