"""Compressed bodies: there and back, within bounds, and every other one refused."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving.content_coding import Damaged, TooLarge, UnknownCoding, choose, expand, shrink

BODY = b'{"inputs": []}' * 200


def bare(body: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        (b"gzip", gzip.compress(BODY)),
        (b"GZip ", gzip.compress(BODY)),
        (b"x-gzip", gzip.compress(BODY)),
        (b"deflate", zlib.compress(BODY)),
        (b"deflate", bare(BODY)),
        (b"identity", BODY),
        (b"", BODY),
    ],
    ids=range(7),
)
def test_what_came_compressed(coding: bytes, sent: bytes) -> None:
    assert expand(coding, sent, len(BODY)) == BODY
    if sent != BODY:
        with pytest.raises(TooLarge, match=f"more than {len(BODY) - 1} bytes"):
            expand(coding, sent, len(BODY) - 1)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_there_and_back(body: bytes, coding: str) -> None:
    body = body + bytes(100)
    small = shrink(coding, body)
    assert small is not None and len(small) < len(body)
    assert expand(coding.encode(), small, len(body)) == body


def test_what_would_grow_is_left_as_it_is() -> None:
    assert shrink("gzip", gzip.compress(BODY)) is None


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"compress", b"gzip, gzip", b"gzip;q=1", b"\xff"])
def test_other_codings_are_named(coding: bytes) -> None:
    with pytest.raises(UnknownCoding, match="there are gzip, deflate"):
        expand(coding, BODY, 1 << 20)


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        (b"gzip", b""),
        (b"deflate", b""),
        (b"gzip", BODY),
        (b"gzip", zlib.compress(BODY)),
        (b"gzip", gzip.compress(BODY)[:-1]),
        (b"gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        (b"gzip", gzip.compress(BODY) + b"x"),
        (b"gzip", gzip.compress(BODY) + gzip.compress(BODY)),
        (b"deflate", zlib.compress(BODY)[:-1]),
        (b"deflate", zlib.compress(BODY) + b"x"),
        (b"deflate", bare(BODY) + b"x"),
        (b"deflate", BODY),
    ],
    ids=range(12),
)
def test_what_is_not_what_it_says(coding: bytes, sent: bytes) -> None:
    with pytest.raises(Damaged):
        expand(coding, sent, 1 << 20)


@given(st.sampled_from([b"gzip", b"deflate"]), st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_bytes_that_are_changed(coding: bytes, body: bytes, at: int, value: int) -> None:
    sent = bytearray(gzip.compress(body) if coding == b"gzip" else zlib.compress(body))
    sent[at % len(sent)] = value
    try:
        assert len(expand(coding, bytes(sent), 1000)) <= 1000
    except (Damaged, TooLarge) as error:
        assert str(error)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_bomb_makes_no_more_than_it_may(coding: bytes) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == b"gzip" else 15)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(256)) + stream.flush()
    tracemalloc.start()
    with pytest.raises(TooLarge):
        expand(coding, bomb, 1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"gzip, deflate, br, zstd", "gzip"),
        (b"deflate, gzip;q=1.0, *;q=0.5", "deflate"),
        (b"deflate;q=0.5, GZIP;q=0.8", "gzip"),
        (b"gzip;q=0", None),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", "gzip"),
        (b"br", None),
        (b"*", None),
        (b"", None),
        (b"gzip;q=x", None),
        (b"gzip;q=nan", None),
        (b",;,=", None),
        (b"\xff\x00", None),
    ],
)
def test_what_a_client_likes_best(accepted: bytes, chosen: str | None) -> None:
    assert choose(accepted) == chosen
