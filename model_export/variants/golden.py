"""Choosing the golden cases: few rows whose outputs every device must reproduce before it serves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model_export.graphs.graph import Array

#: Enough that one flipped class of int8 is still 0.95 agreement, few enough to test in milliseconds.
CASES = 32
#: A device fetches them, so large inputs get fewer cases.
MAX_BYTES, FEWEST = 4 << 20, 4
#: Rows whose two best classes are closer than this say more about rounding than about a device.
MARGIN = 0.1


def choose_rows(
    inputs: Mapping[str, Array], probabilities: Array, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Row numbers of the golden cases, ascending, the same at every call.

    Clear rows, all classes in turn.

    Args:
        inputs: rows [N, …] of each input.
        probabilities: the float model's, [N, K].
        labels: true classes [N].
    """
    row_bytes = sum(array[:1].nbytes for array in inputs.values())
    count = min(len(labels), max(FEWEST, min(CASES, MAX_BYTES // max(row_bytes, 1))))
    best = np.sort(probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] >= MARGIN
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # Clear rows of a class first, each in the file's order.
        rows = np.concatenate([rows[clear[rows]], rows[~clear[rows]]])
        turn[rows] = np.arange(len(rows))
    order = np.lexsort((np.arange(len(labels)), turn, ~clear))
    return np.sort(order[:count])
