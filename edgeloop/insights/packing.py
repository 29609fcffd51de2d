"""Counts as few bytes, and back: many rows of them at once, so that a thousand windows cost a hub few calls.

A count is written in groups of seven bits, the lowest first, with the top bit set in all but its last byte (LEB128). A
run of zeros is one zero, and then how many there are. So the last byte of a row is never zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.insights.sizes import Array, Ints

#: 63 bits: the largest count that is not negative in int64.
MAX_COUNT_BYTES = 9


def pack(counts: Ints) -> bytes:
    """One row of counts [N], none of them negative."""
    zero = counts == 0
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
    begins, lengths = edges[0::2], edges[1::2] - edges[0::2]
    # Of each run its first zero stays, twice: the second one becomes its length.
    kept = ~zero
    kept[begins] = True
    times = np.where(zero[kept], 2, 1)
    numbers = np.repeat(counts[kept], times)
    numbers[np.cumsum(times)[times == 2] - 1] = lengths
    widths = np.ones(len(numbers), np.int64)
    for place in range(1, MAX_COUNT_BYTES):
        widths += numbers >= 1 << (7 * place)
    ends = np.cumsum(widths)
    data = np.empty(int(widths.sum()), np.uint8)
    for place in range(int(widths.max(initial=0))):
        longer = np.flatnonzero(widths > place)
        more = np.where(widths[longer] > place + 1, 128, 0)
        data[(ends - widths)[longer] + place] = (numbers[longer] >> (7 * place) & 127) | more
    return data.tobytes()


def unpack(rows: Sequence[bytes], size: int) -> tuple[Ints, Array]:
    """Rows of counts that anybody may have written; nothing is allocated for more than ``size`` counts a row.

    Args:
        rows: as `pack` wrote them.
        size: counts in each row.

    Returns:
        The rows that are whole, int64 [G, size], none of them negative; and which of all rows those are, bool [M].
    """
    if not size:
        empty = np.array([not row for row in rows], bool)
        return np.zeros((int(empty.sum()), 0), np.int64), empty
    # A row that ends in the middle of a count or of a run would reach into the next one.
    ended = np.array([bool(row) and 0 < row[-1] < 128 for row in rows], bool)
    if not ended.any():
        return np.zeros((0, size), np.int64), ended
    found = rows if ended.all() else [row for row, good in zip(rows, ended.tolist(), strict=True) if good]
    data = np.frombuffer(b"".join(found), np.uint8)
    stops = np.flatnonzero(data < 128)
    numbers, widths = _numbers(data, stops)
    begins = np.searchsorted(stops, np.cumsum([0, *(len(row) for row in found[:-1])]))
    bad = widths > MAX_COUNT_BYTES
    numbers[bad] = 1  # what is beyond nine bytes is not read: such a number must not pass for the begin of a run
    zeros = np.flatnonzero(numbers == 0)
    repeats = np.ones(len(numbers), np.int64)
    repeats[zeros] = 0
    repeats[zeros + 1] = np.minimum(numbers[zeros + 1], size + 1)
    numbers[zeros + 1] = 0
    bad[zeros + 1] |= repeats[zeros + 1] == 0  # a run of none
    whole = (np.add.reduceat(repeats, begins) == size) & ~np.logical_or.reduceat(bad, begins)
    ended[ended] = whole
    if not whole.all():
        kept = np.repeat(whole, np.diff(begins, append=len(numbers)))
        numbers, repeats = numbers[kept], repeats[kept]
    return np.repeat(numbers, repeats).reshape(-1, size), ended


def _numbers(data: Array, stops: Array) -> tuple[Ints, Ints]:
    """The numbers whose last bytes are at ``stops``, and how many bytes each has."""
    starts = np.concatenate([[0], stops[:-1] + 1])
    widths = stops - starts + 1
    numbers = (data[starts] & 127).astype(np.int64)
    for place in range(1, min(int(widths.max()), MAX_COUNT_BYTES)):
        longer = np.flatnonzero(widths > place)
        numbers[longer] |= (data[starts[longer] + place] & 127).astype(np.int64) << (7 * place)
    return numbers, widths
