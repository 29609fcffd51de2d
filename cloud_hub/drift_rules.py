"""How intervals become windows to compare. Pure; ``edgeloop.insights.alarming`` says when there is an alarm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
