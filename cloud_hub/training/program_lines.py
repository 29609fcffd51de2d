"""What a training program's lines mean. Pure.

Whatever it writes is its log. Two kinds of lines say more, each as plain words or as JSON::

    progress 0.4 epoch 4 of 10            {"progress": 0.4, "text": "epoch 4 of 10"}
    result 0.93                           {"result": 0.93}

The share is in 0…1. The result is what a search of parameters goes by: the last one counts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

_PLAIN = re.compile(r"(progress|result)[ \t:=]+([0-9.eE+-]{1,32}%?)(?:\s+(.*))?")
#: A line for people is no longer, and holds no control characters: a terminal would obey them.
MOST_CHARACTERS = 400


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        text: for people.
        share: how far the program is, 0…1, or None.
        result: what a search goes by, or None.
    """

    text: str
    share: float | None = None
    result: float | None = None


def read_line(line: str) -> Line:
    """What a line means; whatever is not understood is a line of the log."""
    line = "".join(c if c.isprintable() else " " for c in line).strip()[:MOST_CHARACTERS]
    share, result, text = _json(line) if line.startswith("{") else _plain(line)
    if share is not None and not 0.0 <= share <= 1.0:
        share = None
    if result is not None and not math.isfinite(result):
        result = None
    return Line(text or line, share, result)


def _plain(line: str) -> tuple[float | None, float | None, str]:
    found = _PLAIN.fullmatch(line)
    if found is None:
        return None, None, line
    kind, number, text = found.groups()
    try:
        value = float(number.removesuffix("%")) / (100.0 if number.endswith("%") else 1.0)
    except ValueError:
        return None, None, line
    return (value, None, text or "") if kind == "progress" else (None, value, line)


def _json(line: str) -> tuple[float | None, float | None, str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None, None, line
    text = found.get("text", "")
    return _number(found.get("progress")), _number(found.get("result")), text if isinstance(text, str) else ""


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
