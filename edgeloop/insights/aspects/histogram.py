"""What all histograms in equal-mass bins share: their arrays, finer and coarser, the counting, and the check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect, Rows, predictions_of
from edgeloop.insights.binning import count_bins, groups
from edgeloop.insights.sizes import ArraySpec, Floats, Sizes

#: In the last of these levels eight neighbouring bins are one; of ten bins two are left, which still tell up from down.
COARSEST = 3


class Histogram(Aspect):
    """Values of each prediction in the profile's equal-mass bins.

    ``name`` int64 [rows, B]; and for each level 1 to `COARSEST` ``name@level`` int64 [rows, ceil(B / 2^level)], in
    which groups of 2^level neighbouring bins are one: what a device without room for more keeps of some of its
    predictions. A prediction is in one level only, so the levels add up. A `single` histogram has arrays without the
    axis of rows.

    Attributes:
        name: of the aspect and of its finest array.
        single: whether there is one row at most, so that the arrays have one axis.
        follows_head: whether the values come out of the last layer, so that a new head changes what is normal.
        reference_rows: of the validation data, the rows that say what is normal.
    """

    single: bool = False
    follows_head: bool = False
    reference_rows: slice = slice(None)

    @abstractmethod
    def rows(self, sizes: Sizes) -> int:
        """Number of histograms in the aspect; 0 when the release has none."""

    @abstractmethod
    def title(self, input_names: Sequence[str], row: int) -> str:
        """What a person calls one of them.

        Args:
            input_names: the profile's names of the input's summaries.
            row: which one.
        """

    @abstractmethod
    def values(self, rows: Rows) -> Floats | None:
        """What is counted: float64 [rows, n]; None when nothing is known of these predictions."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, by level."""
        return (self.name, *(f"{self.name}@{level}" for level in range(1, COARSEST + 1)))

    def key(self, row: int) -> str:
        """Name of one histogram: ``confidence``, ``inputs[3]``."""
        return self.name if self.single else f"{self.name}[{row}]"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        rows, specs = self.rows(sizes), {}
        for level, name in enumerate(self.names):
            width = groups(sizes.bins, level)
            specs[name] = ArraySpec((width if rows else 0,) if self.single else (rows, width), "int64")
        return specs

    def observe(self, into: Arrays, rows: Rows) -> None:
        """See :class:`Aspect`."""
        if (values := self.values(rows)) is not None:
            array = into[self.name]
            array += count_bins(values, rows.profile.edges.of(self.name)).reshape(array.shape)

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        predictions = predictions_of(arrays)
        counted = np.zeros_like(predictions)
        for name in self.names:
            if name in arrays and arrays[name].size:
                sums = arrays[name].sum(axis=-1)
                sums = sums[..., None] if self.single else sums
                yield sums != sums[..., :1], f"the histograms of {name} hold different numbers of predictions"
                counted = counted + sums[..., 0]
        yield counted > predictions, f"{self.name} counts more predictions than there are"
