"""What a window is compared with: the profile, the release's own first windows, the previous days."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from cloud_hub import drift_records
from cloud_hub.alarms import Alarms
from cloud_hub.insights_store import InsightStore, merge_all
from cloud_hub.records.database import Database
from edgeloop.insights import HISTOGRAMS, Window, WindowSchema

DAY_S, HOUR_S = 86_400.0, 3600.0
#: Days before today that make up the reference of the previous days: each day of the week is in it once.
PREVIOUS_DAYS = 7
#: A release's own first windows become a reference when they hold this many times ``min_predictions``: what is
#: compared with them is then the smaller side, so their own noise hardly costs power.
BASELINE_FACTOR = 3

#: What drift looks at: the class counts and the histograms, by the array that has them in full. The rest of a window,
#: the head statistics above all, is far larger.
LOOKED_AT: Mapping[str, Sequence[str]] = {
    "classes": ("classes",),
    **{histogram.name: histogram.names for histogram in HISTOGRAMS},
}
_KEPT = ("counts", *itertools.chain(*LOOKED_AT.values()))


def light(window: Window) -> Window:
    """The window with its counts and histograms only."""
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
    """The window with only the histograms that a new head does not change: what its profile can have as reference."""
    names = [histogram.names for histogram in HISTOGRAMS if not histogram.follows_head]
    return window.only(("counts", *itertools.chain(*names)))


class PreviousDays:
    """Merged windows of whole days; each day is merged once and kept.

    Intervals of an alarm are left out: a drift that was seen is not normal.

    Args:
        db: the records.
        insights: the merged windows.
        alarms: when an alarm was open.
    """

    def __init__(self, db: Database, insights: InsightStore, alarms: Alarms) -> None:
        self._db, self._insights, self._alarms = db, insights, alarms

    def before(self, channel: str, release: str, schema: WindowSchema, at: float) -> Window | None:
        """The sum of the release's windows on the days before the one of ``at``; days are those of UTC."""
        today = int(at // DAY_S)
        with self._db.read() as connection:
            first = drift_records.first_interval(connection, channel, release)
            if first is None or int(first // DAY_S) >= today:
                return None
            since = max(today - PREVIOUS_DAYS, int(first // DAY_S))
            known = drift_records.days(connection, channel, release, since, today)
        found = []
        for day in range(since, today):
            data = known.get(day)
            window = self._merge(channel, release, schema, day) if data is None else Window.from_bytes(data, schema)
            found.append(window)
        return merge_all(found)

    def _merge(self, channel: str, release: str, schema: WindowSchema, day: int) -> Window:
        """Merge a day, an hour at a time, so that never more than an hour is in memory."""
        alarmed = self._alarms.periods(channel, release)
        total = Window.zero(schema, release=release)
        for hour in range(24):
            since = day * DAY_S + hour * HOUR_S
            until = since + HOUR_S
            if any(start < until and (end is None or end > since) for start, end in alarmed):
                continue
            if (part := self._insights.merged(channel, release, since, until)) is not None:
                total = total.merge(light(part))
        with self._db.begin() as connection:
            drift_records.write_day(connection, channel, release, day, total.predictions, total.to_bytes())
        return total
