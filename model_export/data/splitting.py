"""Which rows calibrate, and which validate. No random number is drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model_export.data.table import Array, Table
from model_export.errors import DataError

#: The share of the data that calibrates int8; the rest validates.
CALIBRATION_SHARE = 1 / 3
VALIDATION_ROWS = 2000


def parts_of(table: Table, labels: npt.NDArray[np.int64], calibration_share: float) -> tuple[Array, Array]:
    """Row numbers (calibration, validation): as the data say what was held out, else by `split`.

    Raises:
        DataError: nothing is left for one of the two.
    """
    if table.held_out is None:
        return split(labels, calibration_share)
    seen = np.setdiff1d(np.arange(table.rows), table.held_out)
    if not len(seen) or not len(table.held_out):
        raise DataError(f"{table.file}: of its rows all or none are held out", "a part has to be, to measure the model")
    return seen, table.held_out


def split(labels: npt.NDArray[np.int64], calibration_share: float) -> tuple[Array, Array]:
    """Row numbers (calibration, validation), disjoint, the same at every call, each class in the same share.

    Every k-th row of each class goes to calibration, so a file that is sorted by class or by time is split evenly.
    """
    position = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = labels == label
        position[rows] = np.arange(int(rows.sum()))
    # Bresenham's line: row i is taken where the running share passes the next whole number.
    taken = np.floor((position + 1) * calibration_share) > np.floor(position * calibration_share)
    return np.flatnonzero(taken), np.flatnonzero(~taken)


def spread(rows: Mapping[str, Array], most: int) -> dict[str, Array]:
    """At most so many rows of each array, in their order, from all over it: a file may be sorted by class."""
    count = len(next(iter(rows.values())))
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    return {name: array[chosen] for name, array in rows.items()}


def representative(rows: Array, weight: Array | None) -> Array:
    """Row numbers that stand for what was drawn with unequal chances: rows of a larger weight come more often.

    Systematic resampling (Kitagawa 1996), without chance; of Kish's effective number of rows, so that they say no more
    than the weighted rows do.
    """
    if weight is None or not len(rows) or np.ptp(weight[rows]) == 0:
        return rows
    share = np.asarray(weight[rows], dtype=np.float64)
    if not (np.isfinite(share).all() and (share >= 0).all() and share.sum() > 0):
        raise DataError("the weights of the data hold what is no weight", "give numbers above 0")
    count = max(1, round(float(share.sum() ** 2 / np.square(share).sum())))
    places = (np.arange(count) + 0.5) / count * share.sum()
    return np.asarray(rows[np.minimum(np.searchsorted(np.cumsum(share), places), len(rows) - 1)])
