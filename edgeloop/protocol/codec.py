"""Payload bytes: CBOR in a small, strictly bounded dialect, and the version mark ``v``.

The dialect is: a map with text keys at the top; integers of 64 bits, finite floats, booleans, null, byte strings, text,
arrays and maps with text keys; definite lengths only; no tags. So there is no date, no big number, no shared reference
and no cycle to decode. Numbers that may be NaN travel inside byte strings, whose reader checks them.

cbor2 reads and writes, with everything switched off that the dialect does not have; what it makes is looked at item by
item before anybody else sees it (``docs/decisions/protocol-codec.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import cbor2

from edgeloop.protocol.errors import ProtocolError

VERSION = 1
MAX_BYTES = 1 << 20
#: The head statistics of 1,280 features, as MobileNetV2 has them, take 2 x 6.6 MB in a window; of 64 features, 33 kB.
MAX_WINDOW_BYTES = 16 << 20
MAX_DEPTH = 8
# A window has about 20 items and an answers message 3,000; a million one-byte items would become 60 MB of objects.
MAX_ITEMS = 20_000
MAX_KEY_BYTES = 128
#: A payload up to this long is read before its items are counted: they are 5 MB of objects at most.
_SHORT = 64 << 10
# Of heads: bytes of the argument by the low five bits; the major types of strings; items in an array, a map, a tag.
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_STRINGS, _NESTED = (2, 3), {4: 1, 5: 2, 6: 1}
_PLAIN, _TEXT = frozenset((str, bytes, bool, type(None))), frozenset((str,))


class _NoTags(dict[int, Callable[..., Any]]):
    """For cbor2, which looks every tag up here before it makes anything of it."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        raise ProtocolError(f"a CBOR tag ({tag}); tags are not allowed")


_STRICT: dict[str, Any] = {
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "semantic_decoders": _NoTags(),
}


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
    payload = {**mapping, "v": VERSION}
    try:
        data = cbor2.dumps(payload)
    except (cbor2.CBOREncodeError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the payload cannot be encoded: {error}") from error
    _check_size(data, max_bytes)
    try:
        check(payload)
    except ProtocolError as refused:
        try:
            written = read(data, max_bytes)  # a tuple is no list, and is written as one: what counts is what is read
        except ProtocolError:
            raise refused from None  # what was given says more than how it was written
        check(written)
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
    value = read(data, max_bytes, max_depth)
    check(value, max_depth)
    return opened(value)


def opened(value: Any) -> dict[str, Any]:
    """What is in a payload without its ``v``; raises `ProtocolError` for another version."""
    if not isinstance(value, dict):
        raise ProtocolError(f"the payload is a {type(value).__name__}; it has to be a map")
    version = value.pop("v", None)
    if isinstance(version, bool) or version != VERSION:
        raise ProtocolError(f"v is {version!r}; this program reads version {VERSION} only")
    return value


def read(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """What is in the bytes, before :func:`check` has looked at it; raises `ProtocolError`.

    No tags, no indefinite lengths, no key twice, and nested no deeper than ``max_depth`` + 1.
    """
    _check_size(data, max_bytes)
    if len(data) > _SHORT:
        _count(data)
    stream = BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream, max_depth=max_depth + 1, **_STRICT).decode()
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise ProtocolError(f"the payload is not plain CBOR: {error.__cause__ or error}"[:500]) from error
    if (end := stream.tell()) != len(data):
        raise ProtocolError(f"{len(data) - end} bytes follow the payload at offset {end}")
    return value


def _check_size(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise ProtocolError(f"the payload has {len(data)} bytes; at most {max_bytes} are read")


def check(payload: Any, max_depth: int = MAX_DEPTH) -> None:
    """Refuse what is not in the dialect, one level of nesting after the other; raises `ProtocolError`."""
    level, depth, left = [payload], 0, MAX_ITEMS
    while level:
        left -= len(level)
        if left < 0:
            raise ProtocolError(f"the payload has more than {MAX_ITEMS} items")
        inner: list[Any] = []
        nested = False
        for item in level:
            kind = type(item)
            if kind in _PLAIN:
                continue
            if kind is int:
                if not -(1 << 63) <= item < 1 << 63:
                    raise ProtocolError(f"the integer {item} does not fit into 64 bits with a sign")
            elif kind is float:
                if not math.isfinite(item):
                    raise ProtocolError(f"a number is {item}; numbers have to be finite")
            elif kind is list:
                inner += item
                nested = True
            elif kind is dict:
                _check_keys(item)
                inner += item.values()
                nested = True
            else:
                raise ProtocolError(f"the CBOR simple value {item!r:.40} is not allowed")
        if nested and depth == max_depth:
            raise ProtocolError(f"the payload is nested deeper than {max_depth}")
        level, depth = inner, depth + 1


def _check_keys(found: dict[Any, Any]) -> None:
    if set(map(type, found)) <= _TEXT and max(map(len, found), default=0) <= MAX_KEY_BYTES // 4:  # of 4 bytes each
        return
    for key in found:
        if type(key) is not str:
            raise ProtocolError(f"a map key is {key!r:.40}; it has to be text")
        if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:
            raise ProtocolError(f"the map key {key[:40]!r}… is longer than {MAX_KEY_BYTES} bytes")


def _count(data: bytes) -> None:
    """Refuse a long payload of too many items before anything is made of them.

    Only heads are looked at; what is wrong with them is found by who reads them.
    """
    at = items = 0
    most = 2 * MAX_ITEMS  # keys are counted here
    left = 1
    while left > 0 and at < len(data):
        major, argument = data[at] >> 5, data[at] & 31
        at += 1
        if argument in _WIDTHS:
            width = _WIDTHS[argument]
            argument, at = int.from_bytes(data[at : at + width], "big"), at + width
        left -= 1
        items += 1
        if major in _STRINGS:
            at += argument
        elif major in _NESTED:
            left += argument * _NESTED[major]
        if items > most:
            raise ProtocolError(f"the payload has more than {MAX_ITEMS} items")
