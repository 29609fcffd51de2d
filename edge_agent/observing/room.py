"""Room in the outbox: the oldest neighbours of one release and segment are merged first; then rows give up something.

What a row gives up, and in which order, says `edge_agent.observing.ladder`. Counts are never lost, and what is left
when there is nothing more to give up, one row of counts a release, is kept whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.observing import ladder
from edge_agent.observing.rows import UnsentRows

#: Under a budget: what cannot leave within so long is merged in time, and what even then cannot leave within half a day
#: gives up more. So a window that is large, for its head statistics, waits for its turn rather than losing them.
MERGE_S, GIVE_UP_S = 3600.0, 43_200.0


def make_room(rows: UnsentRows, room: Callable[[float], float]) -> None:
    """Make the rows fit.

    Args:
        rows: without numbers.
        room: bytes that may leave within so many seconds under the budget.
    """
    sent, unsent = rows.sizes()
    left = rows.limit_bytes - sent
    for within_s, ways in ((MERGE_S, (_merge_oldest,)), (GIVE_UP_S, (_merge_oldest, _give_up))):
        most = min(left, room(within_s))
        while unsent > most:
            saved = next((saved for way in ways if (saved := way(rows, unsent - most)) is not None), None)
            if saved is None:
                break
            unsent -= saved


def _merge_oldest(rows: UnsentRows, enough: float) -> int | None:
    """Merge the oldest two rows of one release and segment; returns the bytes saved, None when there are none."""
    found = rows.select("release, segment", "GROUP BY release, segment HAVING COUNT(*) > 1 ORDER BY MIN(row) LIMIT 1")
    if not found:
        return None
    older, newer = rows.find("release = ? AND segment = ?", found[0], most=2)
    return rows.merge(older, newer)


def _give_up(rows: UnsentRows, enough: float) -> int | None:
    """Let the row that has given up least, of those the oldest, give up more: what the next one has given up too.

    Args:
        rows: without numbers.
        enough: bytes that have to be saved, at most.

    Returns:
        The bytes saved; None when there is nothing to give up any more.
    """
    levels = rows.select("row, level", "AND level < ? ORDER BY level, row LIMIT 2", (ladder.TOP,))
    if not levels:
        return None
    (row,) = rows.find("row = ?", levels[0][:1])
    level = max(levels[1][1], row.level + 1) if len(levels) > 1 else ladder.TOP
    return rows.replace(rows.less(row, len(row.body) - enough, level), [row])
