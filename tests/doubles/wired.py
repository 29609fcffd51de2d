"""A window's wire form, taken apart and put together again without any of the reader's checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights.layout import layout_text
from edgeloop.insights.packing import pack, unpack

Array = npt.NDArray[Any]


def arrays_in(wire: Mapping[str, Any]) -> dict[str, Array]:
    """Name → flat int64 or float64, as the layout says."""
    items = [(item.replace("=", ":").split(":"), "=" in item) for item in wire["layout"].split()]
    (counts,), _ = unpack([wire["counts"]], sum(int(size) for (_, size), floats in items if not floats))
    left = {False: counts, True: np.frombuffer(wire["sums"], "<f8")}
    found: dict[str, Array] = {}
    for (name, size), floats in items:
        found[name], left[floats] = np.split(left[floats], [int(size)])
    return found


def with_arrays(wire: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The window with arrays put in, or left out where None; lists of int count, and of float are sums."""
    arrays = {
        name: array if isinstance(array, np.ndarray) else np.asarray(array)
        for name, array in (arrays_in(wire) | changes).items()
        if array is not None
    }
    counts = [array.reshape(-1).astype(np.int64) for array in arrays.values() if array.dtype.kind == "i"]
    sums = [array.astype("<f8").tobytes() for array in arrays.values() if array.dtype.kind == "f"]
    packed = pack(np.concatenate(counts)) if counts else b""
    return {**wire, "layout": layout_text(arrays), "counts": packed, "sums": b"".join(sums)}
