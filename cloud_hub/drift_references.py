"""What a window is compared with: the profile, the release's own first windows, yesterday, the same hour last week."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cloud_hub import drift_records
from cloud_hub.alarms import Alarms
from cloud_hub.drift_rules import Stretch
from cloud_hub.insights_store import InsightStore
from cloud_hub.records.database import Database
from edgeloop.insights import HISTOGRAMS, Window, WindowSchema
from edgeloop.insights.histograms import histogram

DAY_S, HOUR_S, WEEK_S = 86_400.0, 3600.0, 7 * 86_400.0
YESTERDAY, LAST_WEEK = "yesterday", "same hour last week"
#: A release's own first windows become a reference when they hold this many times ``min_predictions``: what is
#: compared with them is then the smaller side, so their own noise hardly costs power.
BASELINE_FACTOR = 3

#: What drift looks at: the class counts and the histograms, by the array that has them in full, with what is a test of
#: the same rows. The rest of a window, the head statistics above all, is far larger.
LOOKED_AT: Mapping[str, Sequence[str]] = {
    "classes": ("classes",),
    **{histogram.name: histogram.names for histogram in HISTOGRAMS},
    "projections": (*histogram("projections").names, "feature_sum", "feature_squares"),
}
_KEPT = ("counts", *itertools.chain(*LOOKED_AT.values()))


def light(window: Window) -> Window:
    """The window with what drift looks at only."""
    return window.only(_KEPT)


def without_reference(reference: Window) -> Sequence[str]:
    """What the profile says nothing about, such as the confidence after a retraining."""
    return [
        name
        for name, arrays in LOOKED_AT.items()
        if reference.schema.arrays[name].size and not any(reference.arrays[array].any() for array in arrays)
    ]


def filled(reference: Window, baseline: Window | None) -> Window:
    """The profile's reference, with the release's own first windows where it says nothing."""
    if baseline is None:
        return reference
    full = light(reference)
    for name in without_reference(reference):
        for array in LOOKED_AT[name]:
            full.arrays[array] = baseline.arrays[array].copy()
    return full


def independent_of_head(window: Window) -> Window:
    """The window with only what a new head does not change: what its profile can have as reference."""
    names = [LOOKED_AT[histogram.name] for histogram in HISTOGRAMS if not histogram.follows_head]
    return window.only(("counts", *itertools.chain(*names)))


class Before:
    """What the same release saw before: yesterday, and in the same hours last week. Days are those of UTC.

    Intervals of an alarm are left out: a drift that was seen is not normal.

    Args:
        db: the records.
        insights: the merged windows.
        alarms: when an alarm was open.
    """

    def __init__(self, db: Database, insights: InsightStore, alarms: Alarms) -> None:
        self._db, self._insights, self._alarms = db, insights, alarms

    def references(self, channel: str, release: str, schema: WindowSchema, stretch: Stretch) -> Mapping[str, Window]:
        """The windows to compare a stretch with, by what they are called; only what was seen."""
        with self._db.read() as connection:
            first = drift_records.first_interval(connection, channel, release)
        found: dict[str, Window] = {}
        if first is None:
            return found
        day = int(stretch.since // DAY_S)
        if first < day * DAY_S:
            found[YESTERDAY] = self._day(channel, release, schema, day - 1)
        since = math.floor((stretch.since - WEEK_S) / HOUR_S) * HOUR_S
        until = math.ceil((stretch.until - WEEK_S) / HOUR_S) * HOUR_S
        if first < until:
            found[LAST_WEEK] = self._hours(channel, release, schema, since, min(until, since + DAY_S))
        return found

    def _day(self, channel: str, release: str, schema: WindowSchema, day: int) -> Window:
        """A whole day, which is merged once and kept."""
        with self._db.read() as connection:
            known = drift_records.days(connection, channel, release, day, day + 1).get(day)
        if known is not None:
            return Window.from_bytes(known, schema)
        total = self._hours(channel, release, schema, day * DAY_S, (day + 1) * DAY_S)
        with self._db.begin() as connection:
            drift_records.write_day(connection, channel, release, day, total.predictions, total.to_bytes())
        return total

    def _hours(self, channel: str, release: str, schema: WindowSchema, since: float, until: float) -> Window:
        """Merge an hour at a time, so that never more than an hour is in memory."""
        alarmed = self._alarms.periods(channel, release)
        total = Window.zero(schema, release=release)
        for hour in np.arange(since, until, HOUR_S):
            end = hour + HOUR_S
            if any(start < end and (closed is None or closed > hour) for start, closed in alarmed):
                continue
            if (part := self._insights.merged(channel, release, float(hour), float(end))) is not None:
                total = total.merge(light(part))
        return total
