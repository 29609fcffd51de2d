"""Rows of running totals: integer columns and one list of integers per class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, select

from cloud_hub.records.database import add_rows, select_in

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
    keys = tuple(table.primary_key.columns)
    with_classes = [key for key, added in sums.items() if any(added.classes)]
    known = _known_classes(connection, table, with_classes)
    rows = {key: [*key, *[added.counts.get(name, 0) for name in names]] for key, added in sums.items()}
    changed = []
    for key in with_classes:
        classes, text = sums[key].classes, known.get(key)
        changed.append([*rows.pop(key), json.dumps(classes if text is None else add_lists(json.loads(text), classes))])
    every = [*(column.name for column in keys), *names, "classes_json"]
    add_rows(connection, table, every, [[*row, "[]"] for row in rows.values()], raised=names)
    add_rows(connection, table, every, changed, raised=names, replaced=["classes_json"])


def _known_classes(connection: Connection, table: Table, keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The lists of the rows that are there, by primary key."""
    query, wanted = _classes_of(table), set(keys)
    *_, column = table.primary_key.columns  # the release rather than the channel: there are many on one
    found = select_in(connection, query, column, sorted({key[-1] for key in keys}))
    rows = ((tuple(key), text) for *key, text in found)
    return {key: text for key, text in rows if key in wanted}


@lru_cache(maxsize=16)
def _classes_of(table: Table) -> Select[Any]:
    return select(*table.primary_key.columns, table.c.classes_json)


def add_lists(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Element by element; the shorter one is taken as ending in zeros (releases may differ in classes)."""
    if len(left) < len(right):
        left, right = right, left
    return [*map(add, left, right), *left[len(right) :]]
