"""Equal-mass bins: edges from quantiles, and counting values into them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights.sizes import Array, Floats, Ints
from edgeloop.records import dataclass

#: Half width of the bin that an atom gets, relative to its size and to the spread of the values. Wide enough for the
#: rounding of float32 sums on different machines, far too narrow to swallow a real change.
ATOM_TOLERANCE = 1e-6
#: The least half width, for an atom at zero without any spread.
ATOM_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Edges:
    """Inner edges of the equal-mass bins, never falling along the last axis; neighbours may coincide.

    Attributes:
        by_name: name of a histogram → float64 [rows, B-1]: `edgeloop.insights.histograms.HISTOGRAMS`.
    """

    by_name: Mapping[str, Floats]

    def of(self, name: str) -> Floats:
        """The edges of one histogram: float64 [rows, B-1]."""
        return self.by_name[name]


def equal_mass_edges(values: Floats, bins: int) -> Floats:
    """Inner edges between ``bins`` bins that hold about equally many of the values.

    Where values tie, quantiles coincide. Of a run of coinciding edges at ``v`` the last goes to ``v + tolerance`` and
    the others to ``v - tolerance``, so that the atom has a bin of its own and a move off it is seen in either
    direction; the bins between coinciding edges stay empty in the reference and in every window, and cost nothing.

    Args:
        values: finite float64 [C, N], N ≥ 1.
        bins: B.

    Returns:
        float64 [C, B-1], never falling along the last axis.
    """
    edges = np.quantile(values, np.arange(1, bins) / bins, axis=1).T.copy()
    for row, column in zip(edges, values, strict=True):
        _spread_atoms(row, float(column.max() - column.min()))
    return np.ascontiguousarray(edges, dtype=np.float64)


def _spread_atoms(edges: Floats, spread: float) -> None:
    """Widen every run of (all but) equal edges [B-1] to a bin around it, in place."""
    half = ATOM_TOLERANCE * (np.abs(edges) + spread) + ATOM_LEAST
    starts = np.flatnonzero(np.r_[True, np.diff(edges) > half[1:]])
    ends = np.r_[starts[1:], len(edges)] - 1
    for start, end in zip(starts, ends, strict=True):
        if end > start:
            edges[start:end] = edges[start] - half[start]  # all but the last: no edge may lie within the atom
            edges[end] += half[end]
    np.maximum.accumulate(edges, out=edges)


def count_bins(values: Floats, edges: Floats) -> Ints:
    """Counts per bin; a value that equals an edge belongs to the bin above it (``searchsorted`` with side "right").

    For several columns, comparing with all edges at once costs B-1 comparisons a value, and is several times faster
    than a binary search for the ten bins that are used, since it needs one call for all of them.

    Args:
        values: float64 [C, N], finite.
        edges: float64 [C, B-1].

    Returns:
        int64 [C, B]; each row sums to N.
    """
    if len(values) == 1:
        places = edges[0].searchsorted(values[0], "right")
        return np.bincount(places, minlength=edges.shape[1] + 1).astype(np.int64, copy=False)[None]
    reached = np.add.reduce(values[:, None, :] >= edges[:, :, None], axis=2, dtype=np.int64)
    counts = np.empty((len(values), edges.shape[1] + 1), dtype=np.int64)
    counts[:, 0] = values.shape[1] - reached[:, 0]
    counts[:, 1:-1] = reached[:, :-1] - reached[:, 1:]
    counts[:, -1] = reached[:, -1]
    return counts


def groups(bins: int, level: int) -> int:
    """How many groups of 2^level neighbouring bins there are: the last one may be smaller."""
    return -(-bins >> level)


def add_neighbours(counts: Array, levels: int) -> Array:
    """Counts of groups of 2^levels neighbouring bins.

    Args:
        counts: int64 [..., b].
        levels: 0 or more. One level at a time gives the same groups as all at once.

    Returns:
        int64 [..., ceil(b / 2^levels)].
    """
    return np.asarray(np.add.reduceat(counts, np.arange(0, counts.shape[-1], 1 << levels), axis=-1))
