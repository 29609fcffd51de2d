"""Counts as few bytes: every row comes back, and a bad one costs the others nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.insights.packing import pack, unpack

counts = st.lists(st.just(0) | st.integers(0, 200) | st.integers(0, 2**63 - 1), min_size=1, max_size=40)


@given(st.lists(counts, min_size=1, max_size=5))
def test_rows_come_back(rows: list[list[int]]) -> None:
    size = max(map(len, rows))
    filled = [row + [0] * (size - len(row)) for row in rows]
    found, whole = unpack([pack(np.array(row, np.int64)) for row in filled], size)
    assert whole.all() and found.tolist() == filled


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ([5], b"\x05"),
        ([127, 128, 300], b"\x7f\x80\x01\xac\x02"),
        ([0, 0, 0, 7, 0], b"\x00\x03\x07\x00\x01"),
        ([0] * 1000, b"\x00\xe8\x07"),
        ([2**62], b"\x80" * 8 + b"\x40"),
        ([], b""),
    ],
)
def test_the_bytes_are_these_on_every_machine(row: list[int], data: bytes) -> None:
    assert pack(np.array(row, np.int64)) == data


BAD = {
    "empty": b"",
    "too few": b"\x01\x01",
    "too many": b"\x01\x01\x01\x01",
    "half a count": b"\x01\x01\x80",
    "half a run": b"\x01\x01\x00",
    "a run of none": b"\x00\x00\x01\x01\x01",
    "a run too long": b"\x01\x00\x03",
    "a run of billions": b"\x00" + b"\xff" * 8 + b"\x7f",
    "runs whose sum wraps around": (b"\x00" + b"\xff" * 8 + b"\x7f") * 3,
    "a count of ten bytes": b"\x01\x01" + b"\xff" * 9 + b"\x01",
    "a zero of ten bytes at the end": b"\x01\x01" + b"\x80" * 9 + b"\x01",
    "a run of ten bytes": b"\x00" + b"\x83" + b"\x80" * 8 + b"\x01",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_row_between_good_ones(bad: bytes) -> None:
    found, whole = unpack([b"\x01\x02\x03", bad, b"\x00\x02\x09", bad, b"\x01\x01\x01"], 3)
    assert whole.tolist() == [True, False, True, False, True]
    assert found.tolist() == [[1, 2, 3], [0, 0, 9], [1, 1, 1]]


def test_rows_of_noise_are_read_together_as_they_are_alone() -> None:
    chance = random.Random(3)
    rows = [chance.randbytes(chance.randrange(12)) for _ in range(3000)]
    found, whole = unpack(rows, 4)
    alone = [unpack([row], 4) for row in rows]
    assert whole.tolist() == [bool(good[0]) for _, good in alone] and 0 < whole.sum() < len(rows)
    assert found.tolist() == [row[0].tolist() for row, good in alone if good[0]]
    assert found.min() >= 0


def test_rows_without_counts() -> None:
    found, whole = unpack([b"", b"\x01"], 0)
    assert found.shape == (1, 0) and whole.tolist() == [True, False]
