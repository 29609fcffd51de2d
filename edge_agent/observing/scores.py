"""Requests that are observed by their scores alone: gathered row by row in one small piece of memory.

Whoever keeps hundreds of requests until they are counted keeps their memory, and every new request then gets memory
that no cache holds: that was measured to cost a small model's request 10 µs, more than all counting.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from edge_agent.ports import Array, LoadedRelease

#: Rows of a block; their scores and ids are some tens of kilobytes.
BLOCK_ROWS = 512
_NOTHING: Array = np.empty((0, 0))


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
    ids: list[str]
    counts: list[int]
    scores: Array
    latencies: list[int]


class ScoresAlone:
    """The block that is being filled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: LoadedRelease | None = None
        self._scores = _NOTHING
        self._rows = 0
        self._ids: list[str] = []
        self._counts: list[int] = []
        self._latencies: list[int] = []

    def add(self, loaded: LoadedRelease, identity: str, scores: Array, latency_ns: int) -> Block | None:
        """Copy a request's scores, [rows, K]; returns the block before it when that is full.

        Raises:
            ValueError: the scores have another shape than those before them.
        """
        rows = len(scores)
        with self._lock:
            full = None
            if loaded is not self._loaded or self._rows + rows > len(self._scores):
                full = self._take()
                self._loaded = loaded
                self._scores = np.empty((max(BLOCK_ROWS, rows), *scores.shape[1:]), scores.dtype)
            end = self._rows + rows
            self._scores[self._rows : end] = scores
            self._rows = end
            self._ids.append(identity)
            self._counts.append(rows)
            self._latencies.append(latency_ns)
            return full

    def take(self) -> Block | None:
        """What has been gathered."""
        with self._lock:
            return self._take()

    def _take(self) -> Block | None:
        if self._loaded is None:
            return None
        block = Block(self._loaded, self._ids, self._counts, self._scores[: self._rows], self._latencies)
        self._loaded, self._scores, self._rows = None, _NOTHING, 0
        self._ids, self._counts, self._latencies = [], [], []
        return block
