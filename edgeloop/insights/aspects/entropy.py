"""How undecided the model was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Array, Floats, Sizes

#: With two classes the confidence alone says the entropy, and a second test of the same would only cost power.
LEAST_CLASSES = 3
#: Smaller probabilities count as this: their share of the entropy is below 1e-28.
LEAST_PROBABILITY = 1e-30


class Entropy(Histogram):
    """``entropy`` int64 [B], or [0]: -Σ p ln p over the classes of each prediction."""

    name = "entropy"
    single = True
    follows_head = True

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.entropies

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return "entropy"

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        return entropy(rows.probabilities) if rows.profile.schema.entropies else None


def entropy(probabilities: Array) -> Floats:
    """-Σ p ln p of each row, nats: float64 [1, n] of [n, K], finite."""
    # Single precision is a sixth of the work, and its error of 1e-6 is that of the probabilities themselves.
    p = probabilities if probabilities.dtype == np.float64 else probabilities.astype(np.float32, copy=False)
    found = -np.einsum("nk,nk->n", p, np.log(np.maximum(p, LEAST_PROBABILITY)))
    return np.asarray(found, dtype=np.float64)[None]
