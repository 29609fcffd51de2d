"""Many windows of one release at once: checked side by side, and added up with one call for each array.

What is found here is what `Window.from_wire` and `Window.merge` find, one window after the other, at a fraction of
their cost. It reads what nearly all windows are like; the others are named, to be read one by one: what is refused, so
that the reason is said in one place only, and what is rare (head statistics, a newer sender's fields and arrays).
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.layout import MAX_SIDE_BY_SIDE, Layout, layout_of
from edgeloop.insights.packing import unpack
from edgeloop.insights.schema import WindowSchema, owners
from edgeloop.insights.sizes import Array, Ints
from edgeloop.insights.sums import Sums
from edgeloop.insights.window import MAX_SEGMENT, MAX_TEXT, MAX_TIME, MIXED, Window
from edgeloop.insights.wire import ARRAY_FIELDS, MAX_DEVICE_COUNT

#: Elements of all arrays of the windows that are read at once: 8 MiB, were they all counted. Memory that is taken and
#: given back for each batch anew costs more than all the rest: twice as many take three times as long a window.
MAX_ELEMENTS = 1 << 20
_fields = itemgetter("release", "variant", "provider", "start", "end", *ARRAY_FIELDS)
_TYPES = (str, str, str, float, float, str, bytes, bytes)


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
        heads: dict[int, Head] = {}
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for place, wire in enumerate(wires):
            if (head := _head(wire)) is not None:
                heads[place] = head
                alike[wire["layout"]].append(place)
        read = (_read(wires, places, layout_of(text, schema)) for text, places in _known(alike, schema))
        blocks = [block for block in read if len(block[0])]
        found = np.concatenate([places for places, _ in blocks]) if blocks else np.zeros(0, np.int64)
        self.places: Ints = np.sort(found)
        self.arrays = _side_by_side(blocks, self.places, schema)
        bad = _broken(self.arrays, len(self.places), schema)
        if bad.any():
            self.places = self.places[~bad]
            self.arrays = {name: array[~bad] for name, array in self.arrays.items()}
        self.heads = [heads[place] for place in self.places.tolist()]
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
        heads = [self.heads[row] for row in rows]
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

    def sums(self, groups: Sequence[Sequence[int]], name: str) -> Array:
        """The sums of one array over groups of the windows, [G, …]; a group has one window at least."""
        chosen = np.fromiter(itertools.chain.from_iterable(groups), np.int64)
        starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
        return np.asarray(np.add.reduceat(self.column(name)[chosen], starts, axis=0))


def rows_at_once(schema: WindowSchema) -> int:
    """How many windows of a release are read at once."""
    small = sum(spec.size for spec in schema.arrays.values() if spec.size <= MAX_SIDE_BY_SIDE)
    return max(1, MAX_ELEMENTS // max(1, small))


def _head(wire: Any) -> Head | None:
    """What a window says of itself; None when there is anything odd about it."""
    if type(wire) is not dict:
        return None
    try:
        values = _fields(wire)
    except KeyError:
        return None
    segment = wire.get("segment", "")
    if tuple(map(type, values)) != _TYPES or type(segment) is not str or len(wire) != len(values) + ("segment" in wire):
        return None
    _, variant, provider, start, end, *_ = values
    if not (abs(start) <= MAX_TIME and abs(end) <= MAX_TIME and _are_names(variant, provider, segment)):
        return None
    return Head(variant, provider, segment, start, end)


@lru_cache(maxsize=1024)
def _are_names(variant: str, provider: str, segment: str) -> bool:
    named = all(len(text) <= MAX_TEXT and text.isascii() and text.isprintable() for text in (variant, provider))
    return named and len(segment) <= MAX_SEGMENT and segment.isprintable()


def _known(alike: Mapping[str, list[int]], schema: WindowSchema) -> Iterator[tuple[str, list[int]]]:
    """The layouts that can be read side by side."""
    for text, places in alike.items():
        with contextlib.suppress(InsightsError):  # said again, with its reason, when the window is read alone
            if layout_of(text, schema).side_by_side:
                yield text, places


Block = tuple[Ints, dict[str, Array]]
"""Places of windows of one layout, and their arrays, [M, …]."""


def _read(wires: Sequence[Any], places: Sequence[int], layout: Layout) -> Block:
    """The windows of one layout, but for those with a number that none can have."""
    counts_size, sums_size = layout.sizes
    chosen = [place for place in places if len(wires[place]["sums"]) == 8 * sums_size]
    counts, whole = unpack([wires[place]["counts"] for place in chosen], counts_size)
    data = b"".join([wires[place]["sums"] for place in itertools.compress(chosen, whole)])
    sums = np.frombuffer(data, "<f8").astype(np.float64).reshape(len(counts), sums_size)
    kept = np.asarray(chosen, np.int64)[whole]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(sums).all(axis=1) & (counts.max(axis=1, initial=0) <= MAX_DEVICE_COUNT)
    if not good.all():
        kept, counts, sums = kept[good], counts[good], sums[good]
    arrays: dict[str, Array] = {}
    for found, numbers in ((layout.counts, counts), (layout.sums, sums)):
        for name, spec, start, stop in found:
            arrays[name] = numbers[:, start:stop].reshape(len(kept), *(() if spec is None else spec.shape))
    return kept, arrays


def _side_by_side(blocks: Sequence[Block], places: Ints, schema: WindowSchema) -> dict[str, Array]:
    """The arrays of several layouts as those of one; what a window has not counted is zero in it."""
    if len(blocks) == 1:
        return blocks[0][1]
    arrays: dict[str, Array] = {}
    for chosen, own in blocks:
        rows = np.searchsorted(places, chosen)
        for name, array in own.items():
            if name not in arrays:
                arrays[name] = np.zeros((len(places), *array.shape[1:]), array.dtype)
            arrays[name][rows] = array
    return arrays


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
