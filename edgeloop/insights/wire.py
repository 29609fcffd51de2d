"""Arrays of a window as CBOR-ready values and back. Nothing is allocated from a size that only the sender announces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.layout import Place, layout_of, layout_text
from edgeloop.insights.packing import pack, unpack
from edgeloop.insights.schema import WindowSchema, owners
from edgeloop.insights.sizes import Array
from edgeloop.insights.sums import Sums

#: What one device can have counted in one window: a month at a million predictions a second.
MAX_DEVICE_COUNT = 1 << 42
#: What a stored, merged window may hold: addition of two such counts still fits int64.
MAX_STORED_COUNT = 1 << 62
#: The fields of a window that say what its arrays hold.
ARRAY_FIELDS = ("layout", "counts", "sums")


def arrays_to_wire(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays as byte strings, in this order.

    Returns:
        ``layout``: which they are, see `edgeloop.insights.layout`; ``counts``: all counts, packed as
        `edgeloop.insights.packing` says; ``sums``: all float64 sums, little-endian. An array of zeros is left out.
    """
    counted = {name: array for name, array in arrays.items() if array.any()}
    counts = [array.reshape(-1) for array in counted.values() if array.dtype.kind == "i"]
    sums = [array.astype("<f8", copy=False).tobytes() for array in counted.values() if array.dtype.kind == "f"]
    packed = pack(np.concatenate(counts)) if counts else b""
    return {"layout": layout_text(counted), "counts": packed, "sums": b"".join(sums)}


def arrays_from_wire(wire: Mapping[str, Any], schema: WindowSchema, max_count: int) -> tuple[Sums, dict[str, Array]]:
    """The arrays of a window from bytes that anybody may have sent.

    Args:
        wire: what :func:`arrays_to_wire` gave, among other fields.
        schema: the arrays that are expected; one that is absent is zero.
        max_count: largest count that is believed.

    Returns:
        The arrays of the schema, checked; and the others, int64 or float64 [size], for `edgeloop.insights.newer`.

    Raises:
        InsightsError: wrong types, sizes, counts, numbers that are not finite, or sums that contradict one another.
    """
    text, packed, data = (wire.get(key, empty) for key, empty in zip(ARRAY_FIELDS, ("", b"", b""), strict=True))
    if type(text) is not str or type(packed) is not bytes or type(data) is not bytes:
        raise InsightsError("the window's layout has to be a text, its counts and its sums byte strings")
    layout = layout_of(text, schema)
    counts_size, sums_size = layout.sizes
    counts, whole = unpack([packed], counts_size)
    if not whole.all():
        raise InsightsError(f"the window's counts are not the {counts_size} numbers that its layout says")
    if len(data) != 8 * sums_size:
        raise InsightsError(f"the window's sums have {len(data)} bytes; its layout says {sums_size} numbers")
    arrays, others, aspects = Sums(schema), dict[str, Array](), owners(schema)
    sums = np.frombuffer(data, "<f8").astype(np.float64)
    for places, numbers in ((layout.counts, counts[0]), (layout.sums, sums)):
        for place in places:
            array = numbers[place.start : place.stop]
            if place.spec is None:
                others[place.name] = array.copy()
            else:
                arrays[place.name] = _believed(place, array, max_count).reshape(place.spec.shape)
    for aspect in dict.fromkeys([aspects[name] for name in arrays]):
        aspect.check(arrays)
    return arrays, others


def added(name: str, one: Array, other: Array) -> Array:
    """The sum of two arrays of one shape and dtype.

    Raises:
        InsightsError: a count is above what a window may hold.
    """
    total = np.asarray(one + other)
    # Read as unsigned, a sum that has wrapped around is large.
    if total.dtype.kind == "i" and total.size and int(total.view(np.uint64).max()) > MAX_STORED_COUNT:
        raise InsightsError(f"the sum of {name} is above {MAX_STORED_COUNT}; a device sends absurd counts")
    return total


def _believed(place: Place, array: Array, max_count: int) -> Array:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InsightsError(f"{place.name} holds numbers that are not finite; an observer leaves such rows out")
    elif array.size and int(array.max()) > max_count:
        raise InsightsError(f"{place.name} holds a count above {max_count}, which no window can reach")
    return array
