"""From what a file writes as a label to the index of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.data.table import Table, listed
from model_export.errors import DataError


def class_indices(table: Table, names: Sequence[str], values: Sequence[Any] | None = None) -> npt.NDArray[np.int64]:
    """Class indices int64 [N] from labels as the file writes them.

    Args:
        table: where the labels are.
        names: the K names of the classes.
        values: what the estimator calls its classes (scikit-learn's ``classes_``), where it is known. Where they are no
            numbers, a label is one of them, one of the names, or an index 0…K-1. Labels that are numbers and all names
            as well are names: classes "1", "10", "2" are not in the order of numbers.

    Raises:
        DataError: a label is none of these.
    """
    labels = [_plain(label) for label in table.labels]
    named = {str(value): i for i, value in enumerate(values or ())} | {name: i for i, name in enumerate(names)}
    known: dict[Any, int]
    if table.labels.dtype.kind in "US":
        known = named
    elif values is not None and not all(isinstance(value, str) for value in values):
        known = {_plain(value): i for i, value in enumerate(values)}
    elif all(str(label) in named for label in labels):
        known = {label: named[str(label)] for label in labels}
    else:
        known = {i: i for i in range(len(names))}
    found = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        hint = "use the names given with --labels, or class indices from 0"
        raise DataError(
            f"{table.file}: row {row} has the label {labels[row]!r}; the model's classes are "
            f"{listed([str(key) for key in known])}",
            hint,
        )
    return found


def _plain(value: Any) -> Any:
    """A label as a plain value that compares equal however numpy stored it: 3, 3.0 and int8(3) are the same class."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return int(value) if isinstance(value, bool) else value
