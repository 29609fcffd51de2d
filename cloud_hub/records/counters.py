"""Rows of running totals: integer columns and one list of integers per class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Table, select, tuple_

from cloud_hub.records.database import add_rows, chunks

#: Counts that a window holds.
WINDOW_COUNTS = ("predictions", "errors", "feedback", "escalations", "nonfinite", "windows")
#: Totals of a release on a channel; ``correct`` are the labels that agree with the prediction.
RELEASE_COUNTS = (*WINDOW_COUNTS, "correct")
#: Totals of a device; ``misdated`` are windows that were filed under the present, since their clock was wrong.
DEVICE_COUNTS = (*WINDOW_COUNTS, "gaps", "quarantined", "misdated")


@dataclass
class Sums:
    """What is to be added to one row."""

    counts: dict[str, int] = field(default_factory=dict)
    classes: list[int] = field(default_factory=list)

    def add(self, counts: Mapping[str, int], classes: Sequence[int] = ()) -> None:
        """Add more."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(count)
        if classes:
            self.classes = add_lists(self.classes, classes)


def read_counts(row: Row[Any], names: Sequence[str]) -> dict[str, Any]:
    """A row of totals as a plain map, with ``classes``."""
    return {**{name: getattr(row, name) for name in names}, "classes": json.loads(row.classes_json)}


def add_sums(connection: Connection, table: Table, sums: Mapping[tuple[str, ...], Sums], names: Sequence[str]) -> None:
    """Add to many rows, each of which is made where it is missing; inside the caller's transaction.

    Args:
        connection: of the transaction.
        table: with the columns ``names``, ``classes_json`` and a primary key of texts.
        sums: what is added, by primary key.
        names: all columns that count.
    """
    columns = list(table.primary_key.columns)
    known: dict[tuple[str, ...], str] = {}
    counted = [key for key, added in sums.items() if any(added.classes)]
    for keys in chunks(counted):
        wanted = columns[0].in_([key[0] for key in keys]) if len(columns) == 1 else tuple_(*columns).in_(keys)
        for found in connection.execute(select(*columns, table.c.classes_json).where(wanted)):
            known[tuple(found[:-1])] = found[-1]
    plain: list[tuple[Any, ...]] = []
    with_classes: list[tuple[Any, ...]] = []
    for key, added in sums.items():
        row = (*key, *[added.counts.get(name, 0) for name in names])
        if not any(added.classes):
            plain.append((*row, "[]"))
        elif (text := known.get(key)) is None:
            with_classes.append((*row, json.dumps(added.classes)))
        else:
            with_classes.append((*row, json.dumps(add_lists(json.loads(text), added.classes))))
    every = [*(column.name for column in columns), *names, "classes_json"]
    add_rows(connection, table, every, plain, raised=names)
    add_rows(connection, table, every, with_classes, raised=names, replaced=["classes_json"])


def add_lists(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Element by element; the shorter one is taken as ending in zeros (releases may differ in classes)."""
    if len(left) < len(right):
        left, right = right, left
    return [int(a) + int(b) for a, b in zip(left, right, strict=False)] + [int(a) for a in left[len(right) :]]
