"""What the labels say about the predictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect, Labels
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.sizes import ArraySpec, Sizes

#: The matrix has K² counts: 1,024 classes take 8 MiB in memory and 1 MiB on the wire. Models with more have none.
MAX_CLASSES = 1_024


class Confusion(Aspect):
    """``confusion`` int64 [K, K]: row = true label, column = predicted class; [0, 0] above `MAX_CLASSES`.

    Labels of audits are not in it: see `edgeloop.insights.aspects.audits`.
    """

    name = "confusion"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        side = sizes.classes if sizes.classes <= MAX_CLASSES else 0
        return {"confusion": ArraySpec((side, side), "int64")}

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        if side := len(into["confusion"]):
            chosen = ~labels.audited  # what was drawn at random is not mixed with what somebody chose
            flat = np.bincount((labels.labels * side + labels.predicted)[chosen], minlength=side * side)
            into["confusion"][:] += flat.reshape(side, side)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        labels = arrays["counts"][..., FEEDBACK]
        yield arrays["confusion"].sum(axis=(-2, -1)) > labels, "the confusion matrix holds more than the labels"
