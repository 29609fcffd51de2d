"""Accuracy against latency or size: what was tried, and which of it nothing else beats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.errors import RequestError
from model_export.notebook import table_of

#: A search tries a few hundred recipes; a file with more points is no result of one.
MOST_POINTS = 2_000
#: Bytes of the file.
MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class Point:
    """A recipe that was tried, or a variant.

    Attributes:
        name: what it is.
        accuracy: on the validation set.
        latency_ms: of one row; None where it was not measured.
        size_bytes: graph and tensors.
        front: no other point is at least as good in all three and better in one.
        chosen: the package carries it.
        why: a sentence about what became of it; may be empty.
    """

    name: str
    accuracy: float
    latency_ms: float | None
    size_bytes: int
    front: bool
    chosen: bool
    why: str = ""


def marked(points: Sequence[Point]) -> tuple[Point, ...]:
    """Points with `Point.front` set."""
    return tuple(
        Point(p.name, p.accuracy, p.latency_ms, p.size_bytes, not any(_beats(q, p) for q in points), p.chosen, p.why)
        for p in points
    )


def _beats(one: Point, other: Point) -> bool:
    first = (-one.accuracy, one.size_bytes, one.latency_ms or 0.0)
    second = (-other.accuracy, other.size_bytes, other.latency_ms or 0.0)
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


@dataclass(frozen=True)
class Search:
    """What a search over recipes has left beside the package.

    Attributes:
        objective: what it made small.
        accuracy_drop: what it was allowed to cost.
        points: what was tried.
        sensitivity: of each node its error in int8 and the accuracy without it there, worst first; may be empty.
    """

    objective: str
    accuracy_drop: float | None
    points: tuple[Point, ...]
    sensitivity: tuple[dict[str, Any], ...] = ()

    def _repr_html_(self) -> str:
        """The front, for Jupyter."""
        rows = [
            (
                point.name,
                f"{point.accuracy:.4f}",
                "" if point.latency_ms is None else f"{point.latency_ms:.3f} ms",
                f"{point.size_bytes:,}",
                "yes" if point.chosen else "",
            )
            for point in self.points
            if point.front or point.chosen
        ]
        head = ("recipe", "accuracy", "latency", "bytes", "in the package")
        return table_of(f"The front of {len(self.points)} recipes", head, rows)


def read_search(path: Path) -> Search | None:
    """The search that belongs to a package, or None where there was none, or nothing that could be searched here.

    Raises:
        RequestError: the file is there, and cannot be read.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        told = json.loads(path.read_bytes())
        drop, recipes, named = told.get("accuracy_drop"), told.get("recipes"), told.get("chosen", ())
        trials = list(told["trials"])
        trials += [trial for target in list(told.get("targets", {}).values())[1:] for trial in target["trials"]]
        if told.get("baseline"):
            trials.insert(0, told["baseline"])
        points = [
            # Several recipes may make a variant of one name: where recipes are told, they decide.
            _point(trial, trial.get("recipe") in recipes if recipes is not None else _name(trial) in named)
            for trial in trials[:MOST_POINTS]
        ]
        found = Search(
            objective=str(told.get("objective", "")),
            accuracy_drop=None if drop is None else float(drop),
            points=tuple(point for point in points if point is not None),
            sensitivity=tuple(dict(item) for item in told.get("sensitivity", ()) if "node" in item),
        )
        return found if found.points else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path.name} cannot be read as the result of a search: {type(error).__name__}: {error}",
            "move it away, and the report shows the variants alone",
        ) from error


def _point(trial: dict[str, Any], chosen: bool) -> Point | None:
    """A trial that was measured; one that failed has no accuracy."""
    if trial.get("accuracy") is None or trial.get("size_bytes") is None:
        return None
    latency = trial.get("latency_ms")
    return Point(
        name=_name(trial),
        accuracy=float(trial["accuracy"]),
        latency_ms=None if latency is None else float(latency),
        size_bytes=int(trial["size_bytes"]),
        front=bool(trial.get("front")),
        chosen=chosen,
        why=str(trial.get("why", "") or ""),
    )


def _name(trial: dict[str, Any]) -> str:
    """What a trial made, in words where there are some."""
    return str(trial.get("description") or trial.get("name") or "a recipe")[:200]
