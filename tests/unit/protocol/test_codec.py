from __future__ import annotations

import contextlib
import math
import resource
import struct
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.protocol.codec import MAX_BYTES, MAX_DEPTH, MAX_ITEMS, MAX_WINDOW_BYTES, decode, encode
from edgeloop.protocol.errors import ProtocolError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(item) for item in value), default=0)
    return 0


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "v"), plain, max_size=5))
def test_plain_values_survive_a_round_trip(value: dict[str, Any]) -> None:
    if depth(value) > MAX_DEPTH:
        with pytest.raises(ProtocolError, match="deeper"):
            encode(value)
    else:
        assert decode(encode(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_either_read_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(data)


@given(plain, st.integers(0, 200), st.integers(0, 255))
def test_one_changed_byte_is_either_read_or_a_protocol_error(value: Any, at: int, byte: int) -> None:
    data = bytearray(cbor2.dumps({"v": 1, "x": value}))
    data[at % len(data)] = byte
    with contextlib.suppress(ProtocolError):
        decode(bytes(data))


V = b"\x61v\x01"  # "v": 1

HOSTILE = {
    "empty": b"",
    "not a map": b"\x01",
    "truncated map": b"\xa2" + V,
    "bytes after the end": b"\xa1" + V + b"\x00",
    "indefinite map": b"\xbf" + V + b"\xff",
    "indefinite text": b"\xa2" + V + b"\x61x\x7f\x61a\xff",
    "a tag": b"\xa2" + V + b"\x61x\xc1\x00",
    "a big number": b"\xa2" + V + b"\x61x\xc2\x41\x05",
    "a shared reference": b"\xa2" + V + b"\x61x\xd8\x1d\x00",
    "an announced gigabyte": b"\xa2" + V + b"\x61x\x5a\x40\x00\x00\x00",
    "announced exabytes": b"\xa2" + V + b"\x61x\x5b" + b"\xff" * 8,
    "an array of billions": b"\xa2" + V + b"\x61x\x9b\x00\x00\x00\x02\x00\x00\x00\x00",
    "an integer of 65 bits": b"\xa2" + V + b"\x61x\x3b" + b"\xff" * 8,
    "an unsigned 64-bit integer": b"\xa2" + V + b"\x61x\x1b" + b"\xff" * 8,
    "NaN": b"\xa2" + V + b"\x61x\xfb" + struct.pack(">d", math.nan),
    "infinity in half precision": b"\xa2" + V + b"\x61x\xf9\x7c\x00",
    "undefined": b"\xa2" + V + b"\x61x\xf7",
    "a simple value": b"\xa2" + V + b"\x61x\xf8\xff",
    "a reserved length": b"\xa2" + V + b"\x61x\x1c",
    "a number as key": b"\xa2" + V + b"\x01\x01",
    "a key twice": b"\xa3" + V + b"\x61x\x01\x61x\x02",
    "text that is not UTF-8": b"\xa2" + V + b"\x61x\x62\xff\xfe",
    "a key that is not UTF-8": b"\xa2" + V + b"\x62\xff\xfe\x01",
    "another version": b"\xa1\x61v\x02",
    "version true": b"\xa1\x61v\xf5",
    "no version": b"\xa1\x61x\x01",
    "too deep": b"\xa2" + V + b"\x61x" + b"\x81" * 50 + b"\x00",
    "a bomb of depth": b"\x81" * 500_000,
    "a bomb of tags": b"\xc1" * 500_000,
    "a tag in a key": b"\xa2" + V + b"\xc2\x41\x05\x01",
    "a list as key": b"\xa2" + V + b"\x81\x61x\x01",
    "a map as key": b"\xa2" + V + b"\xa0\x01",
    "bytes as key": b"\xa2" + V + b"\x41x\x01",
    "an end where an item has to be": b"\xa2" + V + b"\x61x\xff",
    "a million empty lists": b"\xa2" + V + b"\x61x\x9a\x00\x0f\x00\x00" + b"\x80" * 0xF0000,
    "too many items": b"\xa2" + V + b"\x61x\x99" + struct.pack(">H", MAX_ITEMS + 1) + b"\x00" * (MAX_ITEMS + 1),
    "too long": b"\xa2" + V + b"\x61x\x5a" + struct.pack(">I", MAX_BYTES) + bytes(MAX_BYTES),
    "a long key": b"\xa2" + V + b"\x79\x01\x00" + b"k" * 256 + b"\x01",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_in_the_dialect_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_items_are_counted_before_they_are_made() -> None:
    """Sixteen million empty lists would be a gigabyte."""
    data = b"\xa2" + V + b"\x61x\x9a\x00\xff\x00\x00" + b"\x80" * 0xFF0000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ProtocolError, match="items"):
        decode(data, MAX_WINDOW_BYTES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_long_strings_are_not_items() -> None:
    value = {"x": b"\x80" * 500_000, "y": "\x80" * 100_000, "z": [b"a" * 70_000, {"k": 1.5}] * 2}
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [{"x": math.nan}, {"x": math.inf}, {"x": object()}, {"x": 2**64}, {1: 1}, {"x": {3}}, {"v": 2}],
    ids=["NaN", "infinity", "an object", "65 bits", "a number as key", "a set", "another version"],
)
def test_what_could_not_be_read_is_not_written(value: Any) -> None:
    with pytest.raises(ProtocolError):
        encode(value)


def test_a_value_that_holds_itself_is_not_written() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ProtocolError):
        encode({"x": loop})


def test_short_floats_of_other_writers_are_read() -> None:
    assert decode(b"\xa2" + V + b"\x61x\xf9\x3c\x00") == {"x": 1.0}
    assert decode(b"\xa2" + V + b"\x61x\xfa\x3f\xc0\x00\x00") == {"x": 1.5}
