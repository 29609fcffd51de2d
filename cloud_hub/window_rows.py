"""Rows of merged windows: one per channel, release, part and interval, in any table whose key begins so.

A part is a segment of the traffic, or a group of devices. Intervals are of several lengths (``cloud_hub.retention``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, select

from edgeloop.insights import Window, WindowSchema


@dataclass
class Addition:
    """Windows that are to be added to one row; merged in memory first."""

    window: Window
    merged: int


class RowKey(NamedTuple):
    """Which row: the primary key of the table, in its order."""

    channel: str
    release: str
    part: str
    resolution_s: float
    start: float

    def where(self, table: Table) -> ColumnElement[bool]:
        """The row's condition."""
        return and_(*(column == value for column, value in zip(table.primary_key.columns, self, strict=True)))


def gather(
    rows: dict[tuple[str, str, str, float], Addition], key: tuple[str, str, str, float], window: Window, merged: int
) -> None:
    """Add a window to what is to be added under ``key``."""
    if (row := rows.get(key)) is None:
        rows[key] = Addition(window, merged)
    else:
        row.window = row.window.merge(window)
        row.merged += merged


def add_row(
    connection: Connection, table: Table, schema: WindowSchema, key: RowKey, addition: Addition, now: float
) -> None:
    """Add windows to one row, which is made where it is missing, inside the caller's transaction."""
    row = connection.execute(select(table.c.data, table.c.merged).where(key.where(table))).first()
    window, merged = addition.window, addition.merged
    if row is not None:
        window = Window.from_bytes(row.data, schema).merge(window)
        merged += row.merged
    counts = {name: getattr(window, name) for name in ("predictions", "errors", "feedback", "escalations")}
    values = {
        **{name: count for name, count in counts.items() if name in table.c},
        "merged": merged,
        "updated": now,
        "data": window.to_bytes(),
    }
    if row is None:
        names = (column.name for column in table.primary_key.columns)
        connection.execute(table.insert().values(**dict(zip(names, key, strict=True)), **values))
    else:
        connection.execute(table.update().where(key.where(table)).values(**values))
