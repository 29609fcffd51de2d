"""What a head is made of: the fleet's head statistics, over groups of devices and intervals, and the new normal.

Statistics of one backbone are added over all releases that share it, so labels outlive a new head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from cloud_hub import head_groups
from cloud_hub.drift_references import independent_of_head
from cloud_hub.insights_store import InsightStore
from cloud_hub.policy import RetrainingPolicy
from cloud_hub.records.database import Database
from cloud_hub.records.tables import head_windows
from cloud_hub.training.head_slices import held_out_by_segment
from cloud_hub.training.head_statistics import HeadError, HeadStatistics, Share
from cloud_hub.training.robust import Weighing, weigh
from cloud_hub.training.trainer import TrainingError
from edgeloop.insights import Window
from edgeloop.provenance import Material


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a candidate is made of.

    Attributes:
        statistics: head statistics, merged.
        normal: histograms of inputs and features since the alarm, the new normal; None to keep the base's.
        since: unix seconds of the first interval, or None for all there are.
        until: unix seconds, end.
        releases: digests of the releases whose windows are in it.
        intervals: number of intervals with labels.
        weighing: how much each group of devices counts in the statistics.
        half_life_s: age at which a label counts half, seconds; None: all count the same.
        segments: held-out labels of each segment, where windows are kept apart.
    """

    statistics: HeadStatistics
    normal: Window | None
    since: float | None
    until: float
    releases: tuple[str, ...]
    intervals: int
    weighing: Weighing = field(default_factory=lambda: Weighing({}))
    half_life_s: float | None = None
    segments: Mapping[str, Share] = field(default_factory=dict)

    @property
    def material(self) -> Material:
        """The sums that a head is fitted to, for its provenance."""
        told = self.plain()
        facts = {name: told[name] for name in ("since", "until", "labels", "holdout", "intervals", "releases")}
        return Material("head statistics of the fleet", "data", self.statistics.sha256, facts)

    @property
    def notes(self) -> list[str]:
        """What people should know of it, a sentence each."""
        found = [f"the labels of the devices in group {name} are left out: {why}" for name, why in self._against]
        found += [f"the labels of the devices in group {name} count less: they are too many" for name in self._many]
        if self.weighing.disputed:
            groups = ", ".join(self.weighing.disputed)
            found.append(f"groups {groups} of the devices contradict the others, and are too many to be left out")
        return found

    @property
    def _against(self) -> list[tuple[str, str]]:
        return sorted(self.weighing.left_out.items())

    @property
    def _many(self) -> list[str]:
        return sorted(self.weighing.bounded)

    def _groups(self) -> dict[str, Any]:
        return {
            "with_labels": len(self.weighing.factors),
            "left_out": dict(self._against),
            "bounded": self._many,
            "disputed": sorted(self.weighing.disputed),
        }

    def plain(self) -> dict[str, Any]:
        """For lineage: where the labels come from, and how many there are of each class."""
        both = self.statistics.all
        return {
            "since": self.since,
            "until": self.until,
            "labels": both.total,
            "holdout": self.statistics.holdout.total,
            "labels_per_class": [int(n) for n in both.count],
            "worth": round(both.worth, 1),
            "half_life_s": self.half_life_s,
            "groups": self._groups(),
            "releases": list(self.releases),
            "intervals": self.intervals,
        }


def gather(
    db: Database,
    insights: InsightStore,
    channel: str,
    releases: Sequence[str],
    *,
    since: float | None,
    settled: float | None,
    until: float,
    policy: RetrainingPolicy,
) -> TrainingData:
    """Add up what the fleet sent; one group of devices at a time, since head statistics are large.

    Args:
        db: the records.
        insights: the merged windows.
        channel: the channel.
        releases: digests of releases that share a backbone, newest first.
        since: first interval start for labels, unix seconds; None for all.
        settled: first interval start for the new normal; None when nothing has moved.
        until: interval start that is no longer taken.
        policy: how much old labels, and any one group of devices, may count.

    Raises:
        TrainingError: there are no labels, or the model sends no head statistics.
    """
    source = _Source(insights, channel, releases, since, until, policy.half_life_s)
    with db.read() as connection:
        weighing = weigh(source.groups(connection), policy.max_group_share)
        total: HeadStatistics | None = None
        for name, statistics in source.groups(connection):
            if factor := weighing.factors.get(name, 0.0):
                part = statistics.scaled(factor)
                total = part if total is None else total + part
        used, intervals = source.used(connection)
    if total is None or total.labels == 0:
        raise TrainingError("no labels with features have arrived; send feedback to the agents")
    normal = None if settled is None else _normal(insights, channel, releases, settled, until)
    segments = held_out_by_segment(db, insights, channel, releases, since, until)
    return TrainingData(total, normal, since, until, used, intervals, weighing, policy.half_life_s, segments)


@dataclass(frozen=True)
class _Source:
    """The head statistics that a head is made of; attributes as the arguments of :func:`gather`."""

    insights: InsightStore
    channel: str
    releases: Sequence[str]
    since: float | None
    until: float
    half_life_s: float | None

    def groups(self, connection: Connection) -> Iterator[tuple[str, HeadStatistics]]:
        """(group of devices, what its labels add up to), one after the other."""
        schema = self.insights.schema(self.releases[0])
        where = (self.channel, self.releases)
        newest = head_groups.newest(connection, *where, self.since, self.until)
        if newest is None:
            return
        for group in head_groups.groups(schema):
            total: HeadStatistics | None = None
            for start, window in head_groups.intervals(connection, schema, *where, group, self.since, self.until):
                part = self._statistics(window).scaled(self._left(newest - start))
                total = part if total is None else total + part
            if total is not None:
                yield group, total

    def used(self, connection: Connection) -> tuple[tuple[str, ...], int]:
        """Releases whose labels are in it, by age, and the number of their intervals."""
        table = head_windows.c
        query = select(table.release, table.interval_start).where(
            *head_groups.of(self.channel, self.releases, self.since, self.until)
        )
        rows = connection.execute(query.distinct().order_by(table.interval_start, table.release)).all()
        return tuple(dict.fromkeys(row.release for row in rows)), len(rows)

    def _left(self, age_s: float) -> float:
        """What a label of this age, beside the newest, still counts: the same labels always give the same head."""
        return 1.0 if self.half_life_s is None else float(0.5 ** (age_s / self.half_life_s))

    @staticmethod
    def _statistics(window: Window) -> HeadStatistics:
        try:
            return HeadStatistics.of_window(window)
        except HeadError as error:
            raise TrainingError(str(error)) from error


def _normal(
    insights: InsightStore, channel: str, releases: Sequence[str], settled: float, until: float
) -> Window | None:
    """Histograms of inputs and features since the world settled."""
    total: Window | None = None
    for row in insights.each(channel, since=settled, until=until):
        if row.window.release in releases:
            part = independent_of_head(row.window.without_segment())
            part.release = ""  # windows of one backbone add up, whatever head was on it
            total = part if total is None else total.merge(part)
    return total
