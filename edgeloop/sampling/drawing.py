"""Drawing rows: each strategy gives a row a chance, and one number decides for all of them, so the chance is known.

A row's chance of being kept is the sum of the strategies' chances, 1 at most. It is kept beside the row, and its
inverse is the row's weight: whatever a strategy prefers, weighted means over samples are those over all rows (Horvitz
and Thompson, 1952), of those rows that have any chance. Only ``random`` gives one to every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeloop.records import dataclass
from edgeloop.sampling.strategies import Memory, Rows, scores

Floats = npt.NDArray[np.float64]

#: A row is wanted at most this many times as much as the mean: an odd one does not take all.
MOST_WANTED = 20.0
#: Rows that the mean of a strategy's scores looks back on.
MEAN_ROWS = 1000
#: A smaller chance is none: its weight would be larger than anything that is learned from.
LEAST = 1e-5


@dataclass(frozen=True)
class Drawn:
    """One row that is kept.

    Attributes:
        row: its place.
        strategy: that drew it.
        probability: the chance that it had in all.
    """

    row: int
    strategy: str
    probability: float


@dataclass(frozen=True, eq=False)
class Draw:
    """What came of a draw.

    Attributes:
        kept: the rows that are kept.
        chances: float64 [N], of each row, kept or not.
    """

    kept: Sequence[Drawn]
    chances: Floats


class Drawing:
    """Draws rows of one release."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._means: dict[str, tuple[float, int]] = {}

    def draw(self, strategies: Mapping[str, float], share: float, rows: Rows, numbers: Floats) -> Draw:
        """Which rows are kept.

        Args:
            strategies: strategy → share of the kept rows that it may take, 0…1.
            share: of all rows that may be kept, 0…1.
            rows: that were answered.
            numbers: float64 [N], drawn evenly from [0, 1), of which nothing else depends.
        """
        self.memory.seen(rows)
        if not strategies:
            return Draw((), np.zeros(len(rows)))
        chances = np.stack([weight * share * self._wanted(name, rows) for name, weight in strategies.items()])
        total = chances.sum(axis=0)
        chances = np.where(total > 1.0, chances / np.maximum(total, 1.0), chances)
        total = np.minimum(total, 1.0)
        edges = np.cumsum(chances, axis=0)
        names = list(strategies)
        total = np.where(total < LEAST, 0.0, total)
        return Draw(
            [
                # The last edge may be a rounding error below the total.
                Drawn(
                    int(row), names[min(int((numbers[row] >= edges[:, row]).sum()), len(names) - 1)], float(total[row])
                )
                for row in np.flatnonzero(numbers < total)
            ],
            total,
        )

    def _wanted(self, strategy: str, rows: Rows) -> Floats:
        """How many times as much as the mean a strategy wants each row."""
        found = scores(strategy, rows, self.memory)
        if strategy == "drift":  # all or nothing: there is no mean to compare with
            return found
        mean, seen = self._means.get(strategy, (0.0, 0))
        seen = min(seen + len(found), MEAN_ROWS)
        mean += (float(found.mean()) - mean) * min(1.0, len(found) / seen)
        self._means[strategy] = mean, seen
        return np.minimum(found / mean, MOST_WANTED) if mean > 0 else np.zeros(len(found))


def drawn_again(weight: float, share: float, before: float, number: float) -> float | None:
    """The chance that a row has had in all which is drawn since its answer was wrong; None: it is not.

    Args:
        weight: share of the kept rows that disagreements may take.
        share: of all disagreements that may be kept.
        before: the chance that it had when it was answered.
        number: drawn evenly from [0, 1).
    """
    chance = min(weight * share, 1.0)
    if number >= chance or chance < LEAST:
        return None
    return before + (1.0 - before) * chance
