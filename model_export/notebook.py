"""Tables that notebooks show in the place of an object's ``repr``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table_of(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], below: Iterable[str] = ()) -> str:
    """A table as HTML; every text is escaped, since names and notes come from models and data.

    Args:
        title: above it.
        head: names of the columns.
        rows: texts, one for each column.
        below: lines under it.
    """
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    lines = "".join(f"<br><small>{escape(line)}</small>" for line in below)
    return f"<div><table><caption>{escape(title)}</caption><tr>{top}</tr>{body}</table>{lines}</div>"
