"""What a newer sender adds to a window: fields and arrays that this version does not know are kept and written on.

So a hub that is older than its devices loses nothing of theirs; once it is updated, it reads in its stored windows what
it had kept. Every rule here is associative and commutative, like the merging of what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2
import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.sizes import Array
from edgeloop.insights.wire import added

MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096
#: Of arrays that nobody here can check: 256 KiB in memory at most.
MAX_ARRAYS, MAX_ARRAY_SIZE = 16, 2048
#: Far above any sum of an honest device, and far enough from infinity that addition cannot get there.
MAX_SUM = 1e100


def fields_of(wire: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are not known, in the order of their names.

    Raises:
        InsightsError: there are too many, or one is too large.
    """
    found = {key: wire[key] for key in sorted(wire) if key not in known}
    if len(found) > MAX_FIELDS or any(len(_canonical(value)) > MAX_FIELD_BYTES for value in found.values()):
        raise InsightsError(
            f"the window has more than {MAX_FIELDS} unknown fields, or one above {MAX_FIELD_BYTES} bytes"
        )
    return found


def merge_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Union; of two values the greater one, of too many keys the first ones, so that the order does not matter."""
    if not one and not other:
        return {}
    merged = dict(one)
    for key, value in other.items():
        if key not in merged or _canonical(value) > _canonical(merged[key]):
            merged[key] = value
    return {key: merged[key] for key in sorted(merged)[:MAX_FIELDS]}


def arrays_of(sent: Mapping[str, Array], max_count: int) -> dict[str, Array]:
    """The arrays that the schema lacks, int64 or float64 [size], in the order of their names.

    One that is too large, not finite or absurd is left out, and so is what is too many: nothing that this version knows
    depends on it, and a window must not be lost for what a newer version may well understand.
    """
    return {name: sent[name] for name in sorted(sent)[:MAX_ARRAYS] if _is_plausible(sent[name], max_count)}


def merge_arrays(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, Array]:
    """Sums of the arrays of one length and type; of others the longer ones, of too many names the first ones.

    Raises:
        InsightsError: a sum leaves the range of a count.
    """
    merged: dict[str, Array] = {}
    for name in sorted({*one, *other})[:MAX_ARRAYS]:
        mine, theirs = one.get(name), other.get(name)
        if mine is None or (theirs is not None and _form(mine) < _form(theirs)):
            merged[name] = other[name].copy()
        elif theirs is None or _form(theirs) < _form(mine):
            merged[name] = mine.copy()
        else:
            merged[name] = added(name, mine, theirs)
    return merged


def _is_plausible(array: Array, max_count: int) -> bool:
    if array.size > MAX_ARRAY_SIZE:
        return False
    most = max_count if array.dtype.kind == "i" else MAX_SUM
    return bool((np.abs(array) <= most).all())  # NaN fails the comparison


def _form(array: Array) -> tuple[int, str]:
    return array.size, array.dtype.kind


def _canonical(value: Any) -> bytes:
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, ValueError, TypeError, RecursionError) as error:
        raise InsightsError(f"an unknown field of the window cannot be kept: {error}") from error
