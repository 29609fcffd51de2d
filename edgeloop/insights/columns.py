"""Many windows of one release at once: checked side by side, and added up with one call for each array.

What is found here is what `Window.from_wire` and `Window.merge` find, one window after the other, at a fraction of
their cost. It reads what nearly all windows are like; the others are named, to be read one by one: what is refused, so
that the reason is said in one place only, and what is rare (head statistics, a newer sender's fields and arrays).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from edgeloop.insights.schema import WindowSchema, owners
from edgeloop.insights.sizes import Array, Ints
from edgeloop.insights.sums import Sums
from edgeloop.insights.window import MAX_SEGMENT, MAX_TEXT, MAX_TIME, MIXED, Window
from edgeloop.insights.wire import MAX_DEVICE_COUNT

#: Larger arrays are added up one by one: there is nothing to gain.
MAX_SIZE = 4096
#: Elements of all arrays of the windows that are read at once: 32 MiB in memory, where every window has every array.
MAX_ELEMENTS = 1 << 22
_FIELDS = frozenset(("release", "variant", "provider", "segment", "start", "end", "arrays"))
_WIDTHS = (1, 2, 4, 8)


class Head(NamedTuple):
    """What a window says of itself."""

    variant: str
    provider: str
    segment: str
    start: float
    end: float


class Columns:
    """Windows of one release, side by side.

    Args:
        wires: what devices sent as their windows, all of ``release``, at most `rows_at_once` of them.
        release: digest of the release.
        schema: of its windows.

    Attributes:
        places: which of the wires are here, rising: int64 [M].
        odd: which are not, and have to be read one by one.
        heads: of those that are here.
        arrays: name → int64 or float64 [M, …]; what none of them has counted is left out.
    """

    def __init__(self, wires: Sequence[Any], release: str, schema: WindowSchema) -> None:
        self.release, self.schema = release, schema
        heads: list[Head] = []
        places: list[int] = []
        parts: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
        plain = _plain(schema)
        for place, wire in enumerate(wires):
            head = _head(wire)
            found = None if head is None else _parts(wire["arrays"], plain)
            if head is None or found is None:
                continue
            for key, data in found:
                if (column := parts.get(key)) is None:
                    column = parts[key] = ([], [])
                column[0].append(len(places))
                column[1].append(data)
            places.append(place)
            heads.append(head)
        arrays, bad = _stack(parts, len(places), schema)
        bad |= _broken(arrays, len(places), schema)
        kept = np.flatnonzero(~bad)
        self.places: Ints = np.asarray(places, np.int64)[kept]
        self.heads = [heads[place] for place in kept] if bad.any() else heads
        self.arrays = {name: array[kept] for name, array in arrays.items()} if bad.any() else arrays
        self.odd = sorted(set(range(len(wires))) - set(self.places.tolist()))

    def __len__(self) -> int:
        return len(self.heads)

    def column(self, name: str) -> Array:
        """One array of all windows, [M, …]; zeros when none has counted anything there."""
        found = self.arrays.get(name)
        if found is not None:
            return found
        spec = self.schema.arrays[name]
        return np.zeros((len(self), *spec.shape), spec.dtype)

    def total(self, rows: Sequence[int], segment: str) -> Window:
        """The sum of some of the windows, which are of one segment; at least one."""
        whole = len(rows) == len(self)
        chosen = np.asarray(rows, np.int64)
        arrays = Sums(self.schema)
        for name, array in self.arrays.items():
            arrays[name] = np.asarray((array if whole else array[chosen]).sum(axis=0))
        return self._window([self.heads[row] for row in rows], segment, arrays)

    def sums(self, groups: Sequence[Sequence[int]], name: str) -> Array:
        """The sums of one array over groups of the windows, [G, …]; a group has one window at least."""
        chosen = np.fromiter(itertools.chain.from_iterable(groups), np.int64)
        starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
        return np.asarray(np.add.reduceat(self.column(name)[chosen], starts, axis=0))

    def totals(self, groups: Sequence[Sequence[int]], segments: Sequence[str], names: Sequence[str]) -> list[Window]:
        """The sums of groups of the windows, with the arrays of these names only.

        Args:
            groups: rows of each; one at least.
            segments: of each group.
            names: of the arrays.
        """
        summed = {name: self.sums(groups, name) for name in names if name in self.arrays}
        windows = []
        for place, group in enumerate(groups):
            arrays = Sums(self.schema)
            for name, array in summed.items():
                arrays[name] = array[place]
            windows.append(self._window([self.heads[row] for row in group], segments[place], arrays))
        return windows

    def _window(self, heads: Sequence[Head], segment: str, arrays: Sums) -> Window:
        return Window(
            self.release,
            _one({head.variant for head in heads}),
            _one({head.provider for head in heads}),
            min(head.start for head in heads),
            max(head.end for head in heads),
            self.schema,
            arrays,
            segment=segment,
        )


def rows_at_once(schema: WindowSchema) -> int:
    """How many windows of a release are read at once."""
    return max(1, MAX_ELEMENTS // max(1, sum(size for size, _ in _plain(schema).values())))


@lru_cache(maxsize=256)
def _plain(schema: WindowSchema) -> Mapping[str, tuple[int, bool]]:
    """Name → (size, whether it is float64) of the arrays that are read here."""
    aspects = owners(schema)
    return {
        name: (spec.size, spec.dtype == "float64")
        for name, spec in schema.arrays.items()
        if spec.size <= MAX_SIZE and aspects[name].side_by_side
    }


def _head(wire: Any) -> Head | None:
    if type(wire) is not dict or type(wire.get("arrays")) is not dict or not wire.keys() <= _FIELDS:
        return None
    variant, provider, segment = wire.get("variant", ""), wire.get("provider", ""), wire.get("segment", "")
    start, end = wire.get("start", 0.0), wire.get("end", 0.0)
    if type(start) is not float or type(end) is not float or not (abs(start) <= MAX_TIME and abs(end) <= MAX_TIME):
        return None
    for text in (variant, provider):
        if type(text) is not str or len(text) > MAX_TEXT or not (text.isascii() and text.isprintable()):
            return None
    if type(segment) is not str or len(segment) > MAX_SEGMENT or not segment.isprintable():
        return None
    return Head(variant, provider, segment, start, end)


Part = tuple[tuple[str, int], bytes]
"""((name, bytes a count, or 0 for float64), all of an array's bytes)."""


def _parts(arrays: Mapping[str, Any], plain: Mapping[str, tuple[int, bool]]) -> list[Part] | None:
    """The bytes of each array; None when one is odd."""
    found = []
    for name, value in arrays.items():
        if (spec := plain.get(name)) is None:
            return None
        size, floats = spec
        width, data = (0, value) if floats else _counts(value, size)
        if type(data) is not bytes or len(data) != (width or 8) * size:
            return None
        found.append(((name, width), data))
    return found


def _counts(value: Any, size: int) -> tuple[int, bytes | None]:
    """(bytes a count, the bytes with the zeros that were left out); without bytes when they are of another form."""
    if type(value) is not list or len(value) not in (2, 4):
        return 1, None
    width, data = value[0], value[1]
    if type(width) is not int or width not in _WIDTHS or type(data) is not bytes:
        return 1, None
    if len(value) == 4:
        start = value[2]
        if type(start) is not int or value[3] != size or not 0 <= start <= size or len(data) % width:
            return 1, None
        data = bytes(start * width) + data + bytes(max(0, (size - start) * width - len(data)))
    return width, data


def _stack(
    parts: Mapping[tuple[str, int], tuple[list[int], list[bytes]]], count: int, schema: WindowSchema
) -> tuple[dict[str, Array], Array]:
    """The arrays by name, and bool [M]: which windows hold a number that none can have; those are zeros in it."""
    arrays: dict[str, Array] = {}
    bad = np.zeros(count, bool)
    for (name, width), (rows, data) in parts.items():
        spec = schema.arrays[name]
        read = np.frombuffer(b"".join(data), f"<u{width}" if width else "<f8").reshape(len(rows), *spec.shape)
        place = np.asarray(rows, np.int64)
        if width in (0, 8):
            with np.errstate(invalid="ignore"):
                wrong = read > MAX_DEVICE_COUNT if width else ~np.isfinite(read)
            wrong_rows = wrong.reshape(len(rows), -1).any(axis=1)
            if wrong_rows.any():
                bad[place[wrong_rows]] = True
                place, read = place[~wrong_rows], read[~wrong_rows]
        if len(rows) == count and len(place) == count:
            arrays[name] = read.astype(spec.dtype)
            continue
        if name not in arrays:
            arrays[name] = np.zeros((count, *spec.shape), spec.dtype)
        arrays[name][place] = read
    return arrays, bad


def _broken(arrays: Mapping[str, Array], count: int, schema: WindowSchema) -> Array:
    """Which windows contradict themselves: bool [M]."""
    aspects, broken = owners(schema), np.zeros(count, bool)
    zeros = _Zeros(arrays, count, schema)
    with np.errstate(over="ignore", invalid="ignore"):
        for aspect in dict.fromkeys(aspects[name] for name in arrays):
            for found, _ in aspect.broken(zeros):
                broken |= np.asarray(found).reshape(count, -1).any(axis=1)
    return broken


class _Zeros(dict[str, Array]):
    """Arrays of many windows, in which what is not there reads as zeros."""

    def __init__(self, arrays: Mapping[str, Array], count: int, schema: WindowSchema) -> None:
        super().__init__(arrays)
        self._count, self._schema = count, schema

    def __missing__(self, name: str) -> Array:
        spec = self._schema.arrays[name]
        return np.broadcast_to(np.zeros((), spec.dtype), (self._count, *spec.shape))


def _one(names: set[str]) -> str:
    """The name that all have; those without one agree with any."""
    named = names - {""}
    return MIXED if len(named) > 1 else next(iter(named), "")
