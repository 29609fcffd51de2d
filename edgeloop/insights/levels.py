"""Coarser histograms: resolution is given up, and no count.

A device that has no room for all its bins adds neighbours together, as far as it must, window by window. What is fine
and what is coarse merges as plain addition, since each level has arrays of its own. A reader adds the finer ones down
to the level that it compares at.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights.binning import add_neighbours, groups
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.histograms import COARSEST, histogram
from edgeloop.insights.sizes import Array
from edgeloop.insights.window import Window

#: A finer level is read only if this share of the predictions is known there: the rest is then left out.
KNOWN_SHARE = 0.9


def coarsen(window: Window, levels: Mapping[str, int]) -> Window:
    """A copy whose histograms are at least as coarse as asked; counts are kept, also those of coarser levels.

    Args:
        window: left as it is.
        levels: name of a histogram → level, 0 to `COARSEST`.

    Raises:
        InsightsError: a name or a level that does not exist.
    """
    coarse = window.copy()
    for name, level in levels.items():
        names = histogram(name).names
        _check_level(level)
        for finer in range(level):
            if (counts := coarse.arrays.pop(names[finer], None)) is not None:
                coarse.arrays[names[level]] += add_neighbours(counts, level - finer)
    return coarse


def resolved(window: Window, name: str) -> tuple[Array, int]:
    """A histogram as finely as nearly all of its predictions are known.

    Args:
        window: any.
        name: of the histogram.

    Returns:
        Counts int64 [rows, b] of the predictions that are known at this level or finer, and the level: the finest at
        which at least `KNOWN_SHARE` of all that are counted are known.

    Raises:
        InsightsError: there is no such histogram.
    """
    masses = [int(window.arrays[array].sum()) if array in window.arrays else 0 for array in histogram(name).names]
    enough = KNOWN_SHARE * sum(masses)
    level = next(level for level in range(COARSEST + 1) if sum(masses[: level + 1]) >= enough)
    return known_at(window, name, level), level


def known_at(window: Window, name: str, level: int) -> Array:
    """A histogram at a level: what is known there or finer. What is known only coarser is left out.

    Args:
        window: any.
        name: of the histogram.
        level: 0 to `COARSEST`.

    Returns:
        int64 [rows, ceil(B / 2^level)].

    Raises:
        InsightsError: a name or a level that does not exist.
    """
    found = histogram(name)
    _check_level(level)
    schema = window.schema
    total: Array = np.zeros((found.rows(schema), groups(schema.bins, level)), np.int64)
    for finer, array in enumerate(found.names[: level + 1]):
        if total.size and array in window.arrays:
            total += add_neighbours(window.arrays[array], level - finer).reshape(total.shape)
    return total


def _check_level(level: int) -> None:
    if type(level) is not int or not 0 <= level <= COARSEST:
        raise InsightsError(f"the level is {level!r}; it has to be an integer from 0 to {COARSEST}")
