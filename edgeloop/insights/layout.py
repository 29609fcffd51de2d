"""How the arrays of a window lie in its two byte strings: one after the other, as a text says.

``counts:5 classes:10 feature_sum=16``: five counts, ten counts, and sixteen float64 sums. Windows that have counted the
same arrays have the same layout, so a hub looks at it once for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema, owners
from edgeloop.insights.sizes import Array, ArraySpec

#: Some sixty arrays are known, with names of twenty characters.
MAX_TEXT = 8192
#: Numbers of arrays that the reader does not know, and has to skip: 8 MiB while a window is read.
MAX_UNKNOWN = 1 << 20
#: Larger arrays are added up one by one: there is nothing to gain.
MAX_SIDE_BY_SIDE = 4096
_ITEM = re.compile(r"([\w.@-]{1,64})([:=])(\d{1,9})", re.ASCII)


class Place(NamedTuple):
    """Where one array lies.

    Attributes:
        name: of the array.
        spec: what it has to be; None for one that the reader does not know.
        start: its first element, among the counts or among the sums.
        stop: behind its last one.
    """

    name: str
    spec: ArraySpec | None
    start: int
    stop: int


class Layout(NamedTuple):
    """The arrays of a window.

    Attributes:
        counts: those of counts, in order.
        sums: those of float64 sums, in order.
        side_by_side: whether many such windows can be read at once: all arrays are known, small, and checked that way.
    """

    counts: tuple[Place, ...]
    sums: tuple[Place, ...]
    side_by_side: bool

    @property
    def sizes(self) -> tuple[int, int]:
        """How many counts there are, and how many sums."""
        return (self.counts[-1].stop if self.counts else 0), (self.sums[-1].stop if self.sums else 0)


def layout_text(arrays: Mapping[str, Array]) -> str:
    """The layout of these arrays, in this order."""
    return " ".join(f"{name}{':' if array.dtype.kind == 'i' else '='}{array.size}" for name, array in arrays.items())


@lru_cache(maxsize=1024)
def layout_of(text: str, schema: WindowSchema) -> Layout:
    """The layout that anybody may have written, as a reader of this schema sees it.

    Raises:
        InsightsError: it is no layout, or not one of such windows.
    """
    if len(text) > MAX_TEXT:
        raise InsightsError(f"the window's layout has {len(text)} characters; at most {MAX_TEXT} are read")
    aspects = owners(schema)
    places: dict[str, list[Place]] = {":": [], "=": []}
    names: set[str] = set()
    side_by_side, unknown = True, 0
    for item in text.split(" ") if text else ():
        found = _ITEM.fullmatch(item)
        if found is None or found[1] in names:
            raise InsightsError(
                f"the window's layout says {item[:80]!r}; it has to be a new name and a size, as in a:5"
            )
        name, kind, size = found[1], found[2], int(found[3])
        names.add(name)
        spec = schema.arrays.get(name)
        if spec is None:
            unknown += size
        elif spec.size != size or (spec.dtype == "float64") != (kind == "="):
            raise InsightsError(f"{name} is {item!r}; the release's profile says {spec.size} numbers of {spec.dtype}")
        side_by_side &= spec is not None and size <= MAX_SIDE_BY_SIDE and aspects[name].side_by_side
        before = places[kind][-1].stop if places[kind] else 0
        places[kind].append(Place(name, spec, before, before + size))
    if unknown > MAX_UNKNOWN:
        raise InsightsError(f"the window has {unknown} numbers in unknown arrays; at most {MAX_UNKNOWN} are skipped")
    return Layout(tuple(places[":"]), tuple(places["="]), side_by_side)
