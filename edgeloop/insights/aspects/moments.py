"""First and second moments of the features and of the input's summaries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, broken_moments, predictions_of
from edgeloop.insights.sizes import ArraySpec, Sizes


class Moments(Aspect):
    """``feature_sum``, ``feature_squares`` float64 [F]; ``input_sum``, ``input_squares`` float64 [I]."""

    name = "moments"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        features, inputs = ArraySpec((sizes.features,), "float64"), ArraySpec((sizes.inputs,), "float64")
        return {
            "feature_sum": features,
            "feature_squares": features,
            "input_sum": inputs,
            "input_squares": inputs,
        }

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if (features := rows.bounded) is not None:
            into["feature_sum"][:] += features.sum(axis=0)
            into["feature_squares"][:] += np.einsum("nf,nf->f", features, features)
        if rows.summaries is not None:
            into["input_sum"][:] += rows.summaries.sum(axis=1)
            into["input_squares"][:] += np.einsum("in,in->i", rows.summaries, rows.summaries)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        count = predictions_of(arrays)
        yield from broken_moments(count, arrays["feature_sum"], arrays["feature_squares"], "features")
        yield from broken_moments(count, arrays["input_sum"], arrays["input_squares"], "input summaries")
