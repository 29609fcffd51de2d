"""How intervals become windows to compare, and how comparisons become an alarm. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Comparisons in a row without drift after which an alarm is closed.
QUIET_WINDOWS = 5


@dataclass(frozen=True)
class Stretch:
    """Intervals that are merged into one window: from ``since`` up to, not including, ``until``; unix seconds."""

    since: float
    until: float


def cut(
    counts: Iterable[tuple[float, int]], *, length_s: float, min_predictions: int, min_s: float
) -> Sequence[Stretch]:
    """Cut a release's intervals into stretches that are large enough to compare.

    Args:
        counts: (interval start, predictions) by start.
        length_s: length of an interval.
        min_predictions: a stretch holds at least this many.
        min_s: a stretch lasts at least this long, from its first interval's start.

    Returns:
        Stretches without gaps, oldest first. What is left over at the end waits for more.
    """
    found: list[Stretch] = []
    since: float | None = None
    held = 0
    for start, predictions in counts:
        if since is None:
            since = found[-1].until if found else start
        held += predictions
        # Half an interval forgives the last bits of a multiple of a length such as 0.1.
        if held >= min_predictions and start + 1.5 * length_s - since > min_s:
            found.append(Stretch(since, start + length_s))
            since, held = None, 0
    return found


@dataclass(frozen=True)
class Streak:
    """Comparisons in a row that say the same.

    Attributes:
        drifted: number of the latest ones that saw drift; 0 when the last one did not.
        since: start of the first of them, unix seconds, or None.
        settled: end of the first of them, unix seconds, or None.
        quiet: number of the latest ones that saw none.
    """

    drifted: int = 0
    since: float | None = None
    settled: float | None = None
    quiet: int = 0

    def next(self, stretch: Stretch, drifted: bool) -> Streak:
        """The streak after one more comparison."""
        if not drifted:
            return Streak(quiet=self.quiet + 1)
        if self.since is None or self.settled is None:
            return Streak(1, stretch.since, stretch.until)
        return Streak(self.drifted + 1, self.since, self.settled)

    def raises(self, consecutive: int) -> bool:
        """Whether it is long enough for an alarm."""
        return self.drifted >= consecutive

    def clears(self) -> bool:
        """Whether the drift has been gone for long enough to close an alarm."""
        return self.quiet >= QUIET_WINDOWS
