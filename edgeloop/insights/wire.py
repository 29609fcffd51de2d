"""Arrays of a window as CBOR-ready values and back. Nothing is allocated from a size that the sender announces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array, ArraySpec

#: What one device can have counted in one window: a month at a million predictions a second.
MAX_DEVICE_COUNT = 1 << 42
#: What a stored, merged window may hold: addition of two such counts still fits int64.
MAX_STORED_COUNT = 1 << 62
_WIDTHS = (1, 2, 4, 8)


def arrays_to_wire(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays as byte strings, little-endian.

    Returns:
        ``{name: [width, bytes]}`` for counts, with the smallest of 1, 2, 4 or 8 bytes a count, and ``{name: bytes}``
        for float64 sums; an array of zeros is left out.
    """
    return {name: _array_to_wire(array) for name, array in arrays.items() if array.any()}


def arrays_from_wire(wire: Any, schema: WindowSchema, max_count: int) -> dict[str, Array]:
    """The arrays of a window from bytes that anybody may have sent.

    Args:
        wire: what :func:`arrays_to_wire` gave; names that the schema lacks are ignored (a newer sender).
        schema: the arrays that are expected; one that is absent is zero.
        max_count: largest count that is believed.

    Raises:
        InsightsError: wrong types, sizes, counts, numbers that are not finite, or sums that contradict one another.
    """
    if not isinstance(wire, Mapping):
        raise InsightsError(f"the window's arrays are a {type(wire).__name__}; they have to be a map")
    arrays: dict[str, Array] = {
        name: _array_from_wire(name, spec, wire[name], max_count) if name in wire else np.zeros(spec.shape, spec.dtype)
        for name, spec in schema.arrays.items()
    }
    for aspect in ASPECTS:
        aspect.check(arrays)
    return arrays


def _array_to_wire(array: Array) -> list[Any] | bytes:
    if array.dtype.kind == "f":
        return array.astype("<f8", copy=False).tobytes()
    largest = int(array.max())
    width = next(width for width in _WIDTHS if largest < 1 << (8 * width))
    return [width, array.astype(f"<u{width}").tobytes()]


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
    if (
        type(value) not in (list, tuple)
        or len(value) != 2
        or type(value[0]) is not int
        or value[0] not in _WIDTHS
        or type(value[1]) is not bytes
        or len(value[1]) != value[0] * spec.size
    ):
        raise InsightsError(
            f"{name} is {_brief(value)}; the release's profile says [width, {spec.size} counts as bytes]"
        )
    counts = np.frombuffer(value[1], f"<u{value[0]}")
    if counts.size and int(counts.max()) > max_count:
        raise InsightsError(f"{name} holds a count above {max_count}, which no window can reach")
    return counts.astype(np.int64).reshape(spec.shape)


def _brief(value: Any) -> str:
    if isinstance(value, bytes | list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"
