"""From the columns of a table to the one row that a model takes, by standard operators: scaling, and one-hot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from model_export.processing.pieces import Pieces
from model_export.processing.steps import ColumnSteps

OPSET = 13


def column_pieces(columns: Sequence[ColumnSteps], output: str, kind: int) -> Pieces:
    """The graph: FP32 [N, 1] for each number and BYTES [N, 1] for each category → [N, F].

    Args:
        columns: what is declared, in the order of the row's numbers.
        output: name of the model's input.
        kind: its ``TensorProto`` data type.
    """
    to = Pieces()
    parts = [
        _category(to, i, column) if column.categories else _number(to, i, column) for i, column in enumerate(columns)
    ]
    row = to.add("Concat", parts, "row", axis=1)
    if kind != TensorProto.FLOAT:
        row = to.add("Cast", [row], "typed", to=kind)
    to.give(row, output, kind, ["N", sum(len(column.categories) or 1 for column in columns)])
    return to


def _number(to: Pieces, place: int, column: ColumnSteps) -> str:
    value = to.take(column.name, TensorProto.FLOAT, ["N", 1])
    if column.mean:
        value = to.add("Sub", [value, to.constant(f"mean.{place}", column.mean, np.float32)], f"centred.{place}")
    if column.std != 1:
        value = to.add("Div", [value, to.constant(f"std.{place}", column.std, np.float32)], f"scaled.{place}")
    return value


def _category(to: Pieces, place: int, column: ColumnSteps) -> str:
    value = to.take(column.name, TensorProto.STRING, ["N", 1])
    count = len(column.categories)
    number = to.add(
        "LabelEncoder",
        [value],
        f"number.{place}",
        domain="ai.onnx.ml",
        keys_strings=list(column.categories),
        values_int64s=list(range(count)),
        # One place more than there are categories, which is cut off again: OneHot counts -1 from the end.
        default_int64=count,
    )
    flat = to.add("Reshape", [number, to.constant("flat", [-1])], f"flat.{place}")
    depth = to.constant(f"places.{place}", count + 1)
    hot = to.add("OneHot", [flat, depth, to.constant("cold.hot", [0, 1], np.float32)], f"hot.{place}", axis=1)
    ends = [to.constant("first", [0]), to.constant(f"last.{place}", [count]), to.constant("second", [1])]
    return to.add("Slice", [hot, *ends], f"category.{place}")
