"""Arrays of a window as CBOR-ready values and back. Nothing is allocated from a size that only the sender announces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema, owners
from edgeloop.insights.sizes import Array, ArraySpec
from edgeloop.insights.sums import Sums

#: What one device can have counted in one window: a month at a million predictions a second.
MAX_DEVICE_COUNT = 1 << 42
#: What a stored, merged window may hold: addition of two such counts still fits int64.
MAX_STORED_COUNT = 1 << 62
_WIDTHS = (1, 2, 4, 8)
#: Zeros at the ends of an array are left out when that saves more bytes than saying so takes.
_WORTH_TRIMMING = 8


def arrays_to_wire(arrays: Mapping[str, Array], schema: WindowSchema) -> dict[str, Any]:
    """Arrays as byte strings, little-endian, in the schema's order.

    Returns:
        For float64 sums ``{name: bytes}``. For counts ``{name: [width, bytes]}``, with the smallest of 1, 2, 4 or 8
        bytes a count; or ``{name: [width, bytes, start, size]}`` without the zeros before ``start`` and behind the
        bytes, of ``size`` counts in all. An array of zeros is left out.
    """
    return {name: array_to_wire(arrays[name]) for name in schema.arrays if name in arrays and arrays[name].any()}


def arrays_from_wire(wire: Any, schema: WindowSchema, max_count: int) -> Sums:
    """The arrays of a window from bytes that anybody may have sent.

    Args:
        wire: what :func:`arrays_to_wire` gave; names that the schema lacks are for `edgeloop.insights.newer`.
        schema: the arrays that are expected; one that is absent is zero.
        max_count: largest count that is believed.

    Raises:
        InsightsError: wrong types, sizes, counts, numbers that are not finite, or sums that contradict one another.
    """
    if not isinstance(wire, Mapping):
        raise InsightsError(f"the window's arrays are a {type(wire).__name__}; they have to be a map")
    arrays, aspects = Sums(schema), owners(schema)
    for name, spec in schema.arrays.items():
        if name in wire:
            arrays[name] = _array_from_wire(name, spec, wire[name], max_count)
    for aspect in dict.fromkeys([aspects[name] for name in arrays]):
        aspect.check(arrays)
    return arrays


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


def array_to_wire(array: Array) -> list[Any] | bytes:
    """One array that is not all zeros; see :func:`arrays_to_wire`."""
    if array.dtype.kind == "f":
        return array.astype("<f8", copy=False).tobytes()
    flat = array.reshape(-1)
    largest = int(flat.max())
    width = next(width for width in _WIDTHS if largest < 1 << (8 * width))
    data = flat.astype(f"<u{width}").tobytes()
    start = (len(data) - len(data.lstrip(b"\0"))) // width
    kept = data.rstrip(b"\0")
    end = -(-len(kept) // width)
    if (flat.size - (end - start)) * width <= _WORTH_TRIMMING:
        return [width, data]
    return [width, data[start * width : end * width], start, flat.size]


def counts_from_wire(value: Any, most: int) -> Array | None:
    """Counts that :func:`array_to_wire` gave, or None when they are of another form.

    Args:
        value: from anybody.
        most: the largest size that is allocated.

    Returns:
        Unsigned integers [size], to be compared with the largest count before they are used.
    """
    if type(value) not in (list, tuple) or len(value) not in (2, 4):
        return None
    width, data, *trimmed = value
    if type(width) is not int or width not in _WIDTHS or type(data) is not bytes or len(data) % width:
        return None
    counts = np.frombuffer(data, f"<u{width}")
    if not trimmed:
        return counts if counts.size <= most else None
    start, size = trimmed
    if type(start) is not int or type(size) is not int or not 0 <= start <= start + counts.size <= size <= most:
        return None
    whole = np.zeros(size, counts.dtype)
    whole[start : start + counts.size] = counts
    return whole


def _array_from_wire(name: str, spec: ArraySpec, value: Any, max_count: int) -> Array:
    if spec.dtype == "float64":
        if type(value) is not bytes or len(value) != 8 * spec.size:
            raise InsightsError(
                f"{name} is {_brief(value)}; the release's profile says {8 * spec.size} bytes of float64"
            )
        floats = np.frombuffer(value, "<f8").astype(np.float64)
        if not np.isfinite(floats).all():
            raise InsightsError(f"{name} holds numbers that are not finite; an observer leaves such rows out")
        return floats.reshape(spec.shape)
    counts = counts_from_wire(value, spec.size)
    if counts is None or counts.size != spec.size:
        raise InsightsError(
            f"{name} is {_brief(value)}; the release's profile says [width, bytes] or [width, bytes, start, size] of "
            f"{spec.size} counts"
        )
    if counts.itemsize == 8 and counts.size and int(counts.max()) > max_count:  # 2^32 is believed
        raise InsightsError(f"{name} holds a count above {max_count}, which no window can reach")
    return counts.astype(np.int64).reshape(spec.shape)


def _brief(value: Any) -> str:
    if isinstance(value, bytes | list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"
