"""What a scikit-learn estimator takes: one array of numbers, the columns of a table, or texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_export.data import Table
from model_export.data.table import listed
from model_export.errors import DataError, MissingLibraryError
from model_export.graphs.graph import Array

#: The input of an estimator that takes one array.
INPUT = "input"


@dataclass(frozen=True)
class Taken:
    """The inputs of an estimator.

    Attributes:
        names: of the columns, an input each; () for one array.
        width: numbers of the one array; 0 for texts.
        texts: those of the names whose columns hold texts.
        named: whether the estimator was fitted with names, and wants a table with them.
    """

    names: tuple[str, ...] = ()
    width: int = 0
    texts: frozenset[str] = frozenset()
    named: bool = False

    def types(self) -> list[tuple[str, Any]]:
        """The inputs as skl2onnx wants them."""
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType

        if not self.names:
            return [(INPUT, FloatTensorType([None, self.width]))]
        if not self.width:
            return [(name, StringTensorType([None])) for name in self.names]
        return [(n, (StringTensorType if n in self.texts else FloatTensorType)([None, 1])) for n in self.names]

    def rows(self, rows: Mapping[str, Array]) -> Any:
        """What the estimator itself takes, from the graph's inputs.

        Raises:
            MissingLibraryError: it wants a table with names, and pandas is not installed.
        """
        if not self.names:
            return rows[INPUT]
        if not self.width:
            return list(rows[self.names[0]])
        columns = [rows[name][:, 0] for name in self.names]
        if self.named:
            try:
                import pandas as pd
            except ImportError as error:
                raise MissingLibraryError(
                    "the estimator was fitted with a table of pandas", "install pandas"
                ) from error
            return pd.DataFrame(dict(zip(self.names, columns, strict=True)))
        found = np.empty((len(columns[0]), len(columns)), object)
        for place, column in enumerate(columns):
            found[:, place] = column
        return found


def taken_by(estimator: Any, table: Table) -> Taken | None:
    """What an estimator takes, from how it was fitted and what the data hold; None: it is not fitted.

    Raises:
        DataError: the data lack a column, have them in another order, or have more than one that could be its texts.
    """
    texts = frozenset(name for name, array in table.columns.items() if array.ndim == 1 and array.dtype.kind in "OU")
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        return _of_texts(estimator, table, texts)
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and len(table.columns) != width:
        return Taken(width=int(width))
    columns = tuple(map(str, table.columns if names is None else names))
    if missing := [name for name in columns if name not in table.columns]:
        if names is not None and not _by_name(estimator):
            return Taken(width=int(width))  # names that nothing but a warning would miss
        raise DataError(
            f"{table.file} has no column {missing[0]!r}, which the estimator was fitted with",
            "write the file with the columns that it was fitted with, by their names",
        )
    if not texts.intersection(columns) and not _by_name(estimator):
        if tuple(table.columns) != columns:
            raise DataError(
                f"{table.file} has the columns {listed(table.columns)}; "
                f"the estimator was fitted with {listed(columns)}",
                "write the file with these columns alone, in this order: they become one row",
            )
        return Taken(width=int(width))
    return Taken(columns, int(width), texts.intersection(columns), named=names is not None)


def _by_name(estimator: Any) -> bool:
    """Whether a step picks columns by their names."""
    steps = [estimator, *(part for _, part in getattr(estimator, "steps", ()))]
    for step in steps:
        for _, _, columns in getattr(step, "transformers", ()):
            picked = [columns] if isinstance(columns, str) else columns
            if isinstance(picked, list | tuple) and any(isinstance(column, str) for column in picked):
                return True
    return False


def _of_texts(estimator: Any, table: Table, texts: frozenset[str]) -> Taken | None:
    """A pipeline that begins with a vectorizer of texts counts no features of its own."""
    steps = getattr(estimator, "steps", ())
    if not steps or not hasattr(steps[0][1], "vocabulary_"):
        return None
    if len(texts) != 1:
        raise DataError(
            f"{table.file} has {len(texts) or 'no'} columns of texts; the estimator takes one",
            "leave only the texts and the labels in the file",
        )
    return Taken(tuple(texts), 0, texts)
