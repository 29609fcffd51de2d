"""Payload bytes: CBOR in a small, strictly bounded dialect, and the version mark ``v``.

The dialect is: a map with text keys at the top; integers of 64 bits, finite floats, booleans, null, byte strings, text,
arrays and maps with text keys; definite lengths only; no tags. So there is no date, no big number, no shared reference
and no cycle to decode. Numbers that may be NaN travel inside byte strings, whose reader checks them.

:func:`decode` walks the bytes once in Python **before** it hands them to cbor2: what reaches the native decoder is
known to be well-formed, plain and small, so a defect of a native decoder is out of reach from the network
(``docs/decisions/protocol-codec.md``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import cbor2

from edgeloop.protocol.errors import ProtocolError

VERSION = 1
MAX_BYTES = 1 << 20
#: The head statistics of 1,280 features, as MobileNetV2 has them, take 2 x 6.6 MB in a window; of 64 features, 33 kB.
MAX_WINDOW_BYTES = 16 << 20
MAX_DEPTH = 8
# A window has about 30 items and an answers message 3,000; a million one-byte items would cost the reader seconds.
MAX_ITEMS = 20_000
MAX_KEY_BYTES = 128

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_ARGUMENT_WIDTH = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOAT_FORMAT = {25: ">e", 26: ">f", 27: ">d"}
_PLAIN_SIMPLE = (20, 21, 22)  # false, true, null


def encode(mapping: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> bytes:
    """Encode one payload.

    Args:
        mapping: the payload with text keys; ``v`` is added, and if it is there it must be 1.
        max_bytes: longest payload that is written.

    Returns:
        CBOR bytes that :func:`decode` accepts.

    Raises:
        ProtocolError: the value cannot be said in the dialect, or it is larger than its bounds.
    """
    if mapping.get("v", VERSION) != VERSION:
        raise ProtocolError(f"v is {mapping['v']!r}; this program writes version {VERSION} only")
    try:
        data = cbor2.dumps({**mapping, "v": VERSION})
    except (cbor2.CBOREncodeError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the payload cannot be encoded: {error}") from error
    check(data, max_bytes)
    return data


def decode(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Decode one payload from the network.

    Args:
        data: the payload.
        max_bytes: longest payload that is read.
        max_depth: deepest nesting of arrays and maps that is read.

    Returns:
        The payload without its ``v``.

    Raises:
        ProtocolError: the bytes are not in the dialect, are too large or too deep, or are of another version.
    """
    check(data, max_bytes, max_depth)
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:  # such as text that is not UTF-8
        raise ProtocolError(f"the payload is not CBOR: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"the payload is a {type(value).__name__}; it has to be a map")
    version = value.pop("v", None)
    if isinstance(version, bool) or version != VERSION:
        raise ProtocolError(f"v is {version!r}; this program reads version {VERSION} only")
    return value


def check(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> None:
    """Walk over CBOR bytes without building values and refuse whatever is not in the dialect.

    Raises:
        ProtocolError: what is wrong, with the offset in bytes.
    """
    if len(data) > max_bytes:
        raise ProtocolError(f"the payload has {len(data)} bytes; at most {max_bytes} are read")
    walker = _Walker(data, max_depth)
    end = walker.item(0, 1)
    if end != len(data):
        raise ProtocolError(f"{len(data) - end} bytes follow the payload at offset {end}")


class _Walker:
    """One pass over the bytes: every method takes an offset and returns the offset behind what it read."""

    def __init__(self, data: bytes, max_depth: int) -> None:
        self._data = data
        self._max_depth = max_depth
        self._items = 0

    def item(self, at: int, depth: int) -> int:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise ProtocolError(f"the payload has more than {MAX_ITEMS} items")
        major, info, argument, at = self._head(at)
        if major in (_UINT, _NEGATIVE):
            if argument >> 63:
                raise ProtocolError(f"an integer before offset {at} does not fit into 64 bits with a sign")
            return at
        if major in (_BYTES, _TEXT):
            return self._skip(at, argument)
        if major == _ARRAY:
            self._enter(depth, argument, at)
            for _ in range(argument):
                at = self.item(at, depth + 1)
            return at
        if major == _MAP:
            return self._map(at, argument, depth)
        if major == _TAG:
            raise ProtocolError(f"a CBOR tag ({argument}) before offset {at}; tags are not allowed")
        return self._simple(at, info)

    def _head(self, at: int) -> tuple[int, int, int, int]:
        if at >= len(self._data):
            raise ProtocolError(f"the payload ends at offset {at} where an item has to begin")
        first = self._data[at]
        major, info = first >> 5, first & 31
        at += 1
        if info < 24:
            return major, info, info, at
        width = _ARGUMENT_WIDTH.get(info)
        if width is None:
            raise ProtocolError(f"an indefinite or reserved length at offset {at - 1}; lengths have to be definite")
        end = self._skip(at, width)
        return major, info, int.from_bytes(self._data[at:end], "big"), end

    def _skip(self, at: int, count: int) -> int:
        if count > len(self._data) - at:
            raise ProtocolError(f"{count} bytes announced at offset {at}, {len(self._data) - at} are left")
        return at + count

    def _enter(self, depth: int, count: int, at: int) -> None:
        if depth > self._max_depth:
            raise ProtocolError(f"the payload is nested deeper than {self._max_depth} at offset {at}")
        if count > len(self._data) - at:
            raise ProtocolError(f"{count} items announced at offset {at}, {len(self._data) - at} bytes are left")

    def _map(self, at: int, count: int, depth: int) -> int:
        self._enter(depth, count, at)
        seen: set[bytes] = set()
        for _ in range(count):
            major, _, length, start = self._head(at)
            if major != _TEXT:
                raise ProtocolError(f"a map key at offset {at} is not text")
            if length > MAX_KEY_BYTES:
                raise ProtocolError(f"a map key at offset {at} has {length} bytes; at most {MAX_KEY_BYTES} are read")
            end = self._skip(start, length)
            key = bytes(self._data[start:end])
            if key in seen:
                raise ProtocolError(f"the key {key!r} comes twice in one map, again at offset {at}")
            seen.add(key)
            at = self.item(end, depth + 1)
        return at

    def _simple(self, at: int, info: int) -> int:
        if info in _PLAIN_SIMPLE:
            return at
        form = _FLOAT_FORMAT.get(info)
        if form is None:
            raise ProtocolError(f"the CBOR simple value {info} before offset {at} is not allowed")
        (value,) = struct.unpack_from(form, self._data, at - struct.calcsize(form))
        if not math.isfinite(value):
            raise ProtocolError(f"a number before offset {at} is {value}; numbers have to be finite")
        return at
