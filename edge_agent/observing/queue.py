"""Answered requests that wait to be counted: what observing does on the hot path, which is to append.

A fold takes all of them at once. How many make a fold is learned from the last one: so many as hold `FOLD_ROWS` rows or
`FOLD_BYTES`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from edge_agent.observing.scores import BLOCK_REQUESTS, Block, ScoresAlone
from edge_agent.observing.thinning import WIDE_VALUES, WIDE_VALUES_PER_S, Thinning
from edge_agent.observing.watch import NO_ROWS, Answered
from edge_agent.ports import Array, LoadedRelease

FOLD_ROWS = 512
# Inputs and outputs wait in the queue; images of 600 kB would make 512 rows 300 MB.
FOLD_BYTES = 2 << 20
# Until a fold has shown how large requests are.
_FIRST_FOLD = 16
# When the folds cannot keep up, requests wait for them rather than memory growing without end.
_MOST_WAITING = 32


class Queue:
    """What waits; any thread adds to it, and whoever folds takes from it, one at a time.

    Attributes:
        asked: requests with their inputs and outputs, and failed ones.
        fold_at: how many of them make a fold.
        scores: requests of which the scores alone are counted.

    Args:
        full_rows_per_s: rows a second that are observed in full.
    """

    def __init__(self, full_rows_per_s: float) -> None:
        self.asked: deque[Answered] = deque()
        self.fold_at = _FIRST_FOLD
        self.scores = ScoresAlone()
        self._thinning, self._wide = Thinning(full_rows_per_s), Thinning(WIDE_VALUES_PER_S)
        #: See `edge_agent.ports.Recorder`.
        self.in_full = self._thinning.draw
        self.record_scores = self.scores.add

    def __bool__(self) -> bool:
        return bool(self.asked or self.scores)

    def record(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Array,
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
        latency_ns: int,
        run_ns: int,
    ) -> None:
        """See `edge_agent.ports.Recorder`."""
        if inputs.size > WIDE_VALUES:
            # Decided here and not when they are counted, so that images which nobody looks at do not take memory
            # meanwhile. Two threads may lose one another's `seen`: the rate need not be exact.
            self._wide.seen(inputs.size)
            if not self._wide.draw():
                inputs = NO_ROWS
        self.asked.append((loaded, prediction_id, inputs, outputs, places, segment, latency_ns, run_ns))

    def record_error(self, loaded: LoadedRelease, segment: str = "") -> None:
        """See `edge_agent.ports.Recorder`."""
        self.asked.append((loaded, "", NO_ROWS, (), {}, segment, 0, 0))

    @property
    def overflows(self) -> bool:
        """Whether far more waits than a fold takes."""
        return len(self.asked) >= _MOST_WAITING * self.fold_at or len(self.scores) >= _MOST_WAITING * BLOCK_REQUESTS

    def take(self) -> list[Answered | Block]:
        """All that waits."""
        taken = self.asked.popleft
        asked = [taken() for _ in range(len(self.asked))]
        blocks = list(self.scores.take())
        rows = sum(len(block.scores) for block in blocks)
        if asked:
            self.fold_at, others = _sizes(asked)
            rows += others
        self._thinning.seen(rows)
        return [*asked, *blocks]

    def look(self, now: float) -> None:
        """Adapt what is observed in full to what comes; called a few times a second, with the monotonic clock."""
        self._thinning.look(now)
        self._wide.look(now)


def _sizes(asked: Sequence[Answered]) -> tuple[int, int]:
    """How many requests like these make a fold, and about how many rows these are."""
    some = asked[:: max(len(asked) // 16, 1)]
    rows = max(sum(len(item[3][0]) if item[3] else 0 for item in some), 1)
    size = max(sum(item[2].nbytes + sum(output.nbytes for output in item[3]) for item in some), 1)
    fold = min(FOLD_ROWS * len(some) // rows, FOLD_BYTES * len(some) // size, FOLD_ROWS)
    return max(1, fold), rows * len(asked) // len(some)
