"""Rows of running totals: integer columns and one list of integers per class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, select

#: Counts that a window holds.
WINDOW_COUNTS = ("predictions", "errors", "feedback", "escalations", "nonfinite", "windows")
DEVICE_COUNTS = (*WINDOW_COUNTS, "gaps", "quarantined")


def read_counts(row: Row[Any], names: Sequence[str]) -> dict[str, Any]:
    """A row of totals as a plain map, with ``classes``."""
    return {**{name: getattr(row, name) for name in names}, "classes": json.loads(row.classes_json)}


def add_counts(
    connection: Connection,
    table: Table,
    key: Mapping[str, Any],
    counts: Mapping[str, int],
    classes: Sequence[int],
    names: Sequence[str],
) -> None:
    """Add to the row of ``key``, which is made where it is missing; inside the caller's transaction."""
    where = and_(*(table.c[name] == value for name, value in key.items()))
    row = connection.execute(select(table).where(where)).first()
    added = {name: int(counts.get(name, 0)) for name in names}
    if row is None:
        connection.execute(table.insert().values(**key, **added, classes_json=json.dumps([int(n) for n in classes])))
        return
    values: dict[str, Any] = {name: table.c[name] + amount for name, amount in added.items() if amount}
    if any(classes):
        values["classes_json"] = json.dumps(add_lists(json.loads(row.classes_json), classes))
    if values:
        connection.execute(table.update().where(where).values(**values))


def add_lists(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Element by element; the shorter one is taken as ending in zeros (releases may differ in classes)."""
    size = max(len(left), len(right))
    padded = ([*side, *[0] * (size - len(side))] for side in (left, right))
    return [int(a) + int(b) for a, b in zip(*padded, strict=True)]
