"""JSON Lines: an object a line, each with the same keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from model_export.data.table import Array
from model_export.errors import DataError


def read_lines(path: Path) -> dict[str, Array]:
    """Columns of numbers, lists of numbers, or texts; text stays as it is written.

    Raises:
        DataError: a line is no object, lacks a key that the first has, or values of one key differ in kind or length.
    """
    columns: dict[str, list[object]] = {}
    try:
        # Not by splitlines(): JSON may hold U+2028 and other ends of lines as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", "write it in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path.name}, line {number}: this is not JSON: {error}", "write one object a line"
            ) from error
        if not isinstance(row, dict) or (columns and set(row) != set(columns)):
            raise DataError(
                f"{path.name}, line {number}: it has to be an object with {', '.join(columns) or 'some keys'}",
                "write one object a line, each with the same keys",
            )
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: _column(path.name, name, values) for name, values in columns.items()}


def _column(file: str, name: str, values: list[object]) -> Array:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return np.array(values, dtype=object)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{file}: the lists of {name!r} differ in length", "pad them to one length") from error
    if array.dtype.kind not in "fiub" or (str in kinds):
        raise DataError(f"{file}: {name!r} holds neither numbers alone nor texts alone", "fill or drop those rows")
    return array
