"""Requests that are observed by their scores alone: their scores' bytes, and nothing else of them, wait to be counted.

Whoever keeps hundreds of requests until they are counted keeps their memory, and every new request then gets memory
that no cache holds: that was measured to cost a small model's request 10 µs, more than all counting.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.ports import Array, LoadedRelease

#: Requests of a block; their scores and ids take half a megabyte.
BLOCK_REQUESTS = 2048


class Block(NamedTuple):
    """Answered requests of one release.

    Attributes:
        loaded: what answered.
        ids: one a request.
        counts: rows of each request.
        scores: [rows, K].
        latencies: nanoseconds of each request.
    """

    loaded: LoadedRelease
    ids: Sequence[str]
    counts: Sequence[int]
    scores: Array
    latencies: Sequence[int]


class ScoresAlone:
    """What waits. `add` is on the hot path: it copies some bytes and appends."""

    def __init__(self) -> None:
        # Release, dtype, bytes of a row, id, rows, scores, nanoseconds.
        self._waiting: deque[tuple[LoadedRelease, np.dtype[np.generic], int, str, int, bytes, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, loaded: LoadedRelease, identity: str, scores: Array, latency_ns: int) -> None:
        """Copy a request's scores, [rows, K]."""
        rows = len(scores)
        data = scores.tobytes()
        self._waiting.append((loaded, scores.dtype, len(data) // rows, identity, rows, data, latency_ns))

    def take(self) -> Iterator[Block]:
        """What has been gathered; each block is of one release and of scores of one form."""
        taken = self._waiting.popleft
        items = [taken() for _ in range(len(self._waiting))]
        for (_, dtype, width), some in itertools.groupby(items, key=lambda item: (id(item[0]), item[1], item[2])):
            releases, _, _, ids, counts, parts, latencies = zip(*some, strict=True)
            scores = np.frombuffer(b"".join(parts), dtype).reshape(sum(counts), width // dtype.itemsize)
            yield Block(releases[0], ids, counts, scores, latencies)
