"""Requests that are observed by their scores alone: their scores' bytes, and nothing else of them, wait to be counted.

Whoever keeps hundreds of requests until they are counted keeps their memory, and every new request then gets memory
that no cache holds: that was measured to cost a small model's request 10 µs, more than all counting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
        latencies: nanoseconds of each request, from its arrival.
        segment: of all of them; at the place where `Answered` has its own.
        runs: nanoseconds of each request's run.
    """

    loaded: LoadedRelease
    ids: Sequence[str]
    counts: Sequence[int]
    scores: Array
    latencies: Sequence[int]
    segment: str
    runs: Sequence[int]


class ScoresAlone:
    """What waits. `add` is on the hot path: it copies some bytes and appends."""

    def __init__(self) -> None:
        # Release, dtype, bytes of a row, segment, id, rows, scores, nanoseconds of all and of the run.
        self._waiting: deque[tuple[LoadedRelease, np.dtype[np.generic], int, str, str, int, bytes, int, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self, loaded: LoadedRelease, prediction_id: str, scores: Array, segment: str, latency_ns: int, run_ns: int
    ) -> None:
        """Copy a request's scores, [rows, K]."""
        rows = len(scores)
        data = scores.tobytes()
        self._waiting.append(
            (loaded, scores.dtype, len(data) // rows, segment, prediction_id, rows, data, latency_ns, run_ns)
        )

    def take(self) -> Iterator[Block]:
        """What has been gathered; each block is of one release and segment, and of scores of one form."""
        taken = self._waiting.popleft
        items = [taken() for _ in range(len(self._waiting))]
        if not items:
            return
        block = _block(items)
        if block is not None:
            yield block
            return
        kinds: dict[tuple[int, np.dtype[np.generic], int, str], list[tuple[Any, ...]]] = {}
        for item in items:  # segments take turns; what came first stays first
            kinds.setdefault((id(item[0]), *item[1:4]), []).append(item)
        for some in kinds.values():
            block = _block(some)
            assert block is not None, "of one kind"
            yield block


def _block(items: Sequence[tuple[Any, ...]]) -> Block | None:
    """The block of items of one kind; None when they are of several."""
    releases, dtypes, widths, segments, ids, counts, parts, latencies, runs = zip(*items, strict=True)
    if any(kinds.count(kinds[0]) < len(items) for kinds in (releases, dtypes, widths, segments)):
        return None
    scores = np.frombuffer(b"".join(parts), dtypes[0]).reshape(sum(counts), widths[0] // dtypes[0].itemsize)
    return Block(releases[0], ids, counts, scores, latencies, segments[0], runs)
