"""What is counted of one model's requests: sums, in the terms of Triton's statistics extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import time
from typing import Any

#: Sizes of batches that are told apart; a client chooses them, so there must be an end. Larger ones are not listed.
MOST_SIZES = 256


class Tally:
    """Sums over requests; all durations in nanoseconds. Whoever adds holds a lock."""

    __slots__ = (
        "batches",
        "executions",
        "failures",
        "failures_ns",
        "gather_ns",
        "last_ms",
        "nonfinite",
        "queue_ns",
        "queued",
        "requests",
        "requests_ns",
        "rows",
        "run_ns",
    )

    def __init__(self) -> None:
        self.rows = self.requests = self.requests_ns = 0
        self.failures = self.failures_ns = self.nonfinite = 0
        self.queued = self.queue_ns = 0
        self.executions = self.gather_ns = self.run_ns = 0
        self.last_ms = 0
        # Rows of an execution → how often, nanoseconds to gather its inputs, nanoseconds of its runs.
        self.batches: dict[int, list[int]] = {}

    def executed(self, rows: int, gather_ns: int, run_ns: int) -> None:
        """One run of the model, of one or several requests."""
        self.executions += 1
        self.gather_ns += gather_ns
        self.run_ns += run_ns
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= MOST_SIZES:
                return
            batch = self.batches[rows] = [0, 0, 0]
        batch[0] += 1
        batch[1] += gather_ns
        batch[2] += run_ns

    def as_triton(self, name: str, version: str) -> dict[str, Any]:
        """The entry of ``model_stats``, as JSON types."""
        nothing = {"count": 0, "ns": 0}

        def duration(count: int, ns: int) -> dict[str, int]:
            return {"count": count, "ns": ns}

        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "execution_count": self.executions,
            "inference_stats": {
                "success": duration(self.requests, self.requests_ns),
                "fail": duration(self.failures, self.failures_ns),
                "queue": duration(self.queued, self.queue_ns),
                "compute_input": duration(self.executions, self.gather_ns),
                "compute_infer": duration(self.executions, self.run_ns),
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": duration(count, gather_ns),
                    "compute_infer": duration(count, run_ns),
                    "compute_output": nothing,
                }
                for rows, (count, gather_ns, run_ns) in sorted(self.batches.items())
            ],
        }


def now_ms() -> int:
    """Milliseconds since 1970, as Triton's ``last_inference``."""
    return time.time_ns() // 1_000_000
