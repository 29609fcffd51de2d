"""What nearly all messages with a window are like, seen at a glance: codec and fields would look at each value in turn.

Nothing passes here that they would not take. What is unusual, if only a newer sender's additional field, is for them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import itemgetter
from typing import Any

from edgeloop.protocol.codec import MAX_KEY_BYTES, VERSION
from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.fields import MAX_INTEGER, NAME

_fields = itemgetter("v", "epoch", "first", "last", "base", "device", "channel", "window")
_TYPES = (int, int, int, int, int, str, str, dict)
_FLAT = frozenset((str, bytes, float))
#: Fields of a window: there are nine.
_MOST_FIELDS = 16


def is_usual_window(value: Any) -> bool:
    """Whether a payload is an insights message without anything unusual: it then has these fields and no other.

    Args:
        value: as `edgeloop.protocol.codec.read` gives it.
    """
    try:
        found = _fields(value)
    except (KeyError, TypeError):
        return False
    if type(value) is not dict or len(value) != len(found) or tuple(map(type, found)) != _TYPES:
        return False
    version, epoch, first, last, base, device, channel, window = found
    return (
        version == VERSION
        and min(epoch, first, last, base) >= 1
        and max(epoch, first, last, base) <= MAX_INTEGER
        and _is_name(device)
        and _is_name(channel)
        and _is_flat(window)
    )


def _is_flat(window: dict[Any, Any]) -> bool:
    if len(window) > _MOST_FIELDS or not _are_keys(tuple(window)):
        return False
    values = window.values()
    # Not finite where one of them is not; nor where the sum is too large, which is unusual enough.
    return _FLAT.issuperset(map(type, values)) and math.isfinite(sum([one for one in values if type(one) is float]))


@lru_cache(maxsize=256)
def _are_keys(keys: tuple[Any, ...]) -> bool:
    return all(type(key) is str and len(key) <= MAX_KEY_BYTES // 4 for key in keys)  # of 4 bytes each


@lru_cache(maxsize=16_384)
def _is_name(text: str) -> bool:
    try:
        return NAME.read(text, "") == text
    except ProtocolError:
        return False
