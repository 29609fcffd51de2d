"""How a head does on parts of the held-out feedback: each class, each segment. From sums, as everything of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from cloud_hub.insights_store import InsightStore
from cloud_hub.records.database import Database
from cloud_hub.records.tables import windows
from cloud_hub.training.gate import MIN_HOLDOUT_LABELS, Slice
from cloud_hub.training.head import holdout_accuracy, holdout_class_accuracy
from cloud_hub.training.head_statistics import Floats, HeadStatistics, Share


def held_out_by_segment(
    db: Database, insights: InsightStore, channel: str, releases: Sequence[str], since: float | None, until: float
) -> dict[str, Share]:
    """Segment → its held-out labels; nothing where the channel's windows are not kept apart.

    They are summed as they came: groups of devices that are left out of the head have their say here.

    Args:
        db: the records.
        insights: the merged windows.
        channel: the channel.
        releases: digests of releases that share a backbone.
        since: first interval start, unix seconds; None for all.
        until: interval start that is no longer taken.
    """
    table = windows.c
    here = (table.channel == channel, table.release.in_(releases), table.segment != "")
    with db.read() as connection:
        if connection.execute(select(table.segment).where(*here).limit(1)).first() is None:
            return {}
    found: dict[str, Share] = {}
    for row in insights.each(channel, since=since, until=until):
        window = row.window
        if window.segment and window.feedback and window.release in releases:
            share = HeadStatistics.of_window(window).holdout
            found[window.segment] = share if window.segment not in found else found[window.segment] + share
    return found


def by_class(held: Share, labels: Sequence[str], weight: Floats, bias: Floats) -> dict[str, Slice]:
    """Label → how a head does on the held-out feedback of this class, under the normal approximation."""
    accuracy = holdout_class_accuracy(held, weight, bias)
    seen = [int(k) for k in held.count.nonzero()[0]]
    named = {k: labels[k] if k < len(labels) else str(k) for k in seen}
    return {name: Slice(float(accuracy[k]), int(held.count[k])) for k, name in named.items()}


def by_segment(held: Mapping[str, Share], weight: Floats, bias: Floats) -> dict[str, Slice]:
    """Segment → how a head does on its held-out feedback; of those with too few labels, that there are too few."""
    return {
        segment: Slice(
            holdout_accuracy(share, weight, bias) if share.total >= MIN_HOLDOUT_LABELS else 0.0, int(share.total)
        )
        for segment, share in sorted(held.items())
    }
