"""Rows with too few predictions for the policy are merged with others of their segment, or join those of ``other``."""

from __future__ import annotations

from edge_agent.observing import ladder
from edge_agent.observing.rows import UnsentRows
from edgeloop.insights.policy import OTHER

#: A row of a small group waits so long for others of its segment, seconds.
PATIENCE_S = 3600.0


def gather(rows: UnsentRows, least: int, now: float) -> None:
    """Merge rows that hold too few predictions with others of their segment, or with the segment ``other``.

    Args:
        rows: without numbers.
        least: predictions that a row needs before it may leave; 0: any may.
        now: unix seconds.
    """
    while least and (_merge_one(rows, least) or _join_others(rows, least, now)):
        pass


def _merge_one(rows: UnsentRows, least: int) -> bool:
    """Merge one row that holds too few with its neighbour; False when none has one."""
    for row, release, segment in rows.select("row, release, segment", "AND predictions < ? ORDER BY row", (least,)):
        neighbours = rows.select(
            "row",
            "AND release = ? AND segment = ? AND row != ? ORDER BY ABS(row - ?) LIMIT 1",
            (release, segment, row, row),
        )
        if neighbours:
            older, newer = rows.find("row IN (?, ?)", (row, *neighbours[0]), most=2)
            rows.merge(older, newer)
            return True
    return False


def _join_others(rows: UnsentRows, least: int, now: float) -> bool:
    """Give one row that has waited for long enough to the segment ``other``; False when there is none."""
    found = rows.find(  # a clock that was set back must not keep it for ever
        "predictions < ? AND level < ? AND segment NOT IN ('', ?) AND NOT since BETWEEN ? AND ?",
        (least, ladder.TOP, OTHER, now - PATIENCE_S, now),
    )
    for row in found:
        rows.rename(row, OTHER)
    return bool(found)
