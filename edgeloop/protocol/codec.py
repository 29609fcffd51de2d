"""Payload bytes: CBOR in a small, strictly bounded dialect, and the version mark ``v``.

The dialect is: a map with text keys at the top; integers of 64 bits, finite floats, booleans, null, byte strings, text,
arrays and maps with text keys; definite lengths only; no tags. So there is no date, no big number, no shared reference
and no cycle to decode. Numbers that may be NaN travel inside byte strings, whose reader checks them.

Bytes from the network are read by `_Reader` below, in one pass of plain Python: no native decoder ever sees them, so
none of its defects is within reach (``docs/decisions/protocol-codec.md``). cbor2 only writes.
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
_PAIR = 0x82  # an array of two, as most counts of a window are: [bytes a count, bytes]
_PLAIN_SIMPLE = {20: False, 21: True, 22: None}


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
    _read(data, max_bytes, MAX_DEPTH)
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
    value = _read(data, max_bytes, max_depth)
    if not isinstance(value, dict):
        raise ProtocolError(f"the payload is a {type(value).__name__}; it has to be a map")
    version = value.pop("v", None)
    if isinstance(version, bool) or version != VERSION:
        raise ProtocolError(f"v is {version!r}; this program reads version {VERSION} only")
    return value


def _read(data: bytes, max_bytes: int, max_depth: int) -> Any:
    if len(data) > max_bytes:
        raise ProtocolError(f"the payload has {len(data)} bytes; at most {max_bytes} are read")
    try:
        value, end = _Reader(bytes(data), max_depth).item(0, 1)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a text is not UTF-8: {error.reason}") from error
    except IndexError:
        raise ProtocolError(f"the payload ends after {len(data)} bytes, where an item has to begin") from None
    if end != len(data):
        raise ProtocolError(f"{len(data) - end} bytes follow the payload at offset {end}")
    return value


class _Reader:
    """One pass over the bytes: every method takes an offset and returns the offset behind what it read.

    Nothing is made before its bytes are known to be there. Where the bytes end too early, indexing raises IndexError;
    where a text is none, UnicodeDecodeError is raised.
    """

    __slots__ = ("_data", "_left", "_max_depth")

    def __init__(self, data: bytes, max_depth: int) -> None:
        self._data = data
        self._max_depth = max_depth
        self._left = MAX_ITEMS - 1  # beside the payload itself

    def item(self, at: int, depth: int) -> tuple[Any, int]:
        """The item at an offset, and the offset behind it."""
        data = self._data
        first = data[at]
        major, argument = first >> 5, first & 31
        at += 1
        if argument > 23:
            if major == _SIMPLE:
                return self._float(argument, at)
            width = _ARGUMENT_WIDTH.get(argument)
            if width is None:
                raise ProtocolError(f"an indefinite or reserved length at offset {at - 1}; lengths have to be definite")
            argument, at = int.from_bytes(data[at : at + width], "big"), self._skip(at, width)
        if major == _BYTES:
            end = at + argument
            if end > len(data):
                self._skip(at, argument)
            return data[at:end], end
        if major in (_UINT, _NEGATIVE):
            if argument >> 63:
                raise ProtocolError(f"an integer before offset {at} does not fit into 64 bits with a sign")
            return (argument if major == _UINT else -1 - argument), at
        if major == _MAP:
            return self._map(at, argument, depth)
        if major == _ARRAY:
            return self._array(at, argument, depth)
        return self._rare(major, argument, at)

    def _rare(self, major: int, argument: int, at: int) -> tuple[Any, int]:
        if major == _TEXT:
            end = self._skip(at, argument)
            return str(self._data[at:end], "utf-8"), end
        if major == _TAG:
            raise ProtocolError(f"a CBOR tag ({argument}) before offset {at}; tags are not allowed")
        if argument not in _PLAIN_SIMPLE:
            raise ProtocolError(f"the CBOR simple value {argument} before offset {at} is not allowed")
        return _PLAIN_SIMPLE[argument], at

    def _skip(self, at: int, count: int) -> int:
        if count > len(self._data) - at:
            raise ProtocolError(f"{count} bytes announced at offset {at}, {max(len(self._data) - at, 0)} are left")
        return at + count

    def _enter(self, at: int, count: int, depth: int) -> None:
        if depth > self._max_depth:
            raise ProtocolError(f"the payload is nested deeper than {self._max_depth} at offset {at}")
        if count > len(self._data) - at:
            raise ProtocolError(f"{count} items announced at offset {at}, {len(self._data) - at} bytes are left")
        self._left -= count
        if self._left < 0:
            raise ProtocolError(f"the payload has more than {MAX_ITEMS} items")

    def _array(self, at: int, count: int, depth: int) -> tuple[list[Any], int]:
        self._enter(at, count, depth)
        values = []
        for _ in range(count):
            value, at = self._value(at, depth + 1)
            values.append(value)
        return values, at

    def _map(self, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
        self._enter(at, count, depth)
        data, read, depth = self._data, self._value, depth + 1
        values: dict[str, Any] = {}
        for _ in range(count):
            first = data[at]
            if 0x60 <= first < 0x78:
                start = at + 1
                end = start + first - 0x60
                if end > len(data):
                    self._skip(start, first - 0x60)
            else:
                start, end = self._long_key(at)
            key = str(data[start:end], "utf-8")
            if key in values:
                raise ProtocolError(f"the key {key!r} comes twice in one map, again at offset {at}")
            values[key], at = read(end, depth)
        return values, at

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        """What :meth:`item` says, sooner for what a window is made of: small numbers, byte strings and arrays."""
        data = self._data
        first = data[at]
        if first < 0x18:
            return first, at + 1
        if 0x40 <= first < 0x5A:
            if first < 0x58:
                start, length = at + 1, first - 0x40
            elif first == 0x58:
                start, length = at + 2, data[at + 1]
            else:
                start, length = at + 3, data[at + 1] << 8 | data[at + 2]
            end = start + length
            if end > len(data):
                self._skip(start, length)
            return data[start:end], end
        if first == _PAIR and data[at + 1] < 0x18:
            self._enter(at + 1, 2, depth)
            value, end = self._value(at + 2, depth + 1)
            return [data[at + 1], value], end
        return self.item(at, depth)

    def _long_key(self, at: int) -> tuple[int, int]:
        first = self._data[at]
        width = _ARGUMENT_WIDTH.get(first & 31)
        if first >> 5 != _TEXT:
            raise ProtocolError(f"a map key at offset {at} is not text")
        if width is None:
            raise ProtocolError(f"an indefinite or reserved length at offset {at}; lengths have to be definite")
        start = self._skip(at + 1, width)
        length = int.from_bytes(self._data[at + 1 : start], "big")
        if length > MAX_KEY_BYTES:
            raise ProtocolError(f"a map key at offset {at} has {length} bytes; at most {MAX_KEY_BYTES} are read")
        return start, self._skip(start, length)

    def _float(self, info: int, at: int) -> tuple[float, int]:
        form = _FLOAT_FORMAT.get(info)
        if form is None:
            raise ProtocolError(f"the CBOR simple value {info} before offset {at} is not allowed")
        end = self._skip(at, struct.calcsize(form))
        (value,) = struct.unpack_from(form, self._data, at)
        if not math.isfinite(value):
            raise ProtocolError(f"a number before offset {end} is {value}; numbers have to be finite")
        return value, end
