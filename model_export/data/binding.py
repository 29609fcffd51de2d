"""From a table's columns to the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_export.data.table import Array, InputSpec, Table, listed
from model_export.errors import DataError


def bind(table: Table, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """The inputs of a model, [N, …] each, from the columns of a table.

    A column with an input's name is that input. A model of one input also takes the only column, whatever its name, or
    all columns of single numbers side by side, in the file's order.

    Raises:
        DataError: a column is missing, has another shape, holds text, or holds a number that is not finite.
    """
    columns = dict(table.columns)
    if len(specs) == 1 and specs[0].name not in columns:
        columns = {specs[0].name: _only_input(table)}
    missing = [spec.name for spec in specs if spec.name not in columns]
    if missing:
        hint = f"name the arrays as the model names its inputs: {', '.join(spec.name for spec in specs)}"
        raise DataError(f"{table.file}: no data for {', '.join(missing)}; it has {listed(table.columns)}", hint)
    return {spec.name: _fit(table.file, columns[spec.name], spec) for spec in specs}


def _only_input(table: Table) -> Array:
    columns = table.columns
    if len(columns) == 1:
        return next(iter(columns.values()))
    wide = [name for name, array in columns.items() if array.ndim != 1]
    if wide:
        hint = "leave only that array and the labels in the file, or name it as the model names its input"
        raise DataError(f"{table.file}: which of {listed(columns)} is the model's input?", hint)
    text = [name for name, array in columns.items() if array.dtype.kind not in "fiub"]
    if text:
        raise DataError(f"{table.file}: column {text[0]!r} holds text", "encode it as numbers or drop the column")
    return np.stack([array.astype(np.float64) for array in columns.values()], axis=1)


def _fit(file: str, array: Array, spec: InputSpec) -> Array:
    if spec.dtype.kind == "O":
        return _shaped(file, _texts(file, array, spec), spec)
    if array.dtype.kind not in "fiub" or spec.dtype.kind not in "fiub":
        raise DataError(
            f"{file}: {spec.name} is {array.dtype}, the model takes {spec.dtype}", "give float32 or integers"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataError(f"{file}: {spec.name} has a number that is not finite, first in row {row}", "drop or mend it")
    if spec.dtype.kind in "iub" and not _holds(spec.dtype, array):
        raise DataError(
            f"{file}: {spec.name} is {array.dtype}; its values do not fit the model's {spec.dtype}",
            "give whole numbers in its range",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, dtype=spec.dtype)
    if spec.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{file}: {spec.name} has numbers too large for the model's {spec.dtype}", "scale or drop them")
    return _shaped(file, array, spec)


def _texts(file: str, array: Array, spec: InputSpec) -> Array:
    if array.dtype.kind not in "OUiu" or (array.dtype == object and not all(isinstance(v, str) for v in array.flat)):
        raise DataError(f"{file}: {spec.name} is {array.dtype}, the model takes texts", "give texts or categories")
    texts = np.empty(array.shape, object)
    texts[...] = array.astype(str) if array.dtype.kind in "iu" else array
    return texts


def _holds(dtype: np.dtype[Any], array: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array_equal(array, array.astype(dtype))


def _shaped(file: str, array: Array, spec: InputSpec) -> Array:
    shape = array.shape[1:]
    if len(shape) == len(spec.shape) and all(want in (-1, have) for want, have in zip(spec.shape, shape, strict=True)):
        return array
    # A flat row of the right length is the common way to store images in a table.
    if -1 not in spec.shape and np.prod(shape, dtype=np.int64) == np.prod(spec.shape, dtype=np.int64):
        return array.reshape(len(array), *spec.shape)
    raise DataError(
        f"{file}: a row of {spec.name} has shape {list(shape)}, the model takes {list(spec.shape)}",
        "use the data that the model was trained for, prepared in the same way",
    )
