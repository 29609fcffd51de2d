"""From the windows that arrived together to what is added to the records: side by side where they are alike.

What is odd about a window (`edgeloop.insights.columns`) is read alone, so that it is refused with its own reason, or
counted like any other, and the windows beside it are counted at full speed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cloud_hub.insights_store import Additions, InsightStore, class_counts, count_window
from cloud_hub.records.counters import Sums
from cloud_hub.seen import LIGHT, Seen
from edgeloop.insights import InsightsError, Window, WindowSchema
from edgeloop.insights.aspects.counts import NAMES as COUNTS
from edgeloop.insights.columns import Columns, rows_at_once

#: Upper bounds of the ages of windows that are told apart, seconds.
AGE_BOUNDS_S = (60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)


class Arrived(NamedTuple):
    """A window that is to be counted.

    Attributes:
        device: that sent it.
        channel: that it belongs to.
        window: as it was sent.
        skew_s: the device's clock minus the hub's, seconds.
        sent: of the caller, given back with what is refused.
    """

    device: str
    channel: str
    window: Mapping[str, Any]
    skew_s: float
    sent: Any


@dataclass
class Ages:
    """How old windows were when they were counted: numbers by `AGE_BOUNDS_S`, the last beyond all, and their sum."""

    numbers: list[int] = field(default_factory=lambda: [0] * (len(AGE_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, numbers: Sequence[int], sum_s: float) -> None:
        """Add more."""
        self.numbers = [mine + more for mine, more in zip(self.numbers, numbers, strict=True)]
        self.sum_s += sum_s


@dataclass
class Counted:
    """What one transaction adds.

    Attributes:
        additions: to the merged windows.
        devices: to the totals of devices, by (device,).
        seen: the same windows, for observers.
        tally: what became of windows.
        ages: of the windows.
    """

    additions: Additions = field(default_factory=Additions)
    devices: dict[tuple[str, ...], Sums] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    ages: Ages = field(default_factory=Ages)

    def count(self, device: str, counts: Mapping[str, int], classes: Sequence[int] = ()) -> None:
        """Add to a device's totals."""
        if (sums := self.devices.get((device,))) is None:
            self.devices[(device,)] = Sums(dict(counts), list(classes))
        else:
            sums.add(counts, classes)


class Counting:
    """Adds up the windows of one transaction.

    Args:
        insights: says which interval a window belongs to.
        counted: what is added to.
        now: unix seconds, the hub's clock.
        observing: whether observers have to be told of each device's windows.
    """

    def __init__(self, insights: InsightStore, counted: Counted, now: float, *, observing: bool) -> None:
        self._insights, self._counted, self._now, self._observing = insights, counted, now, observing

    def add(self, release: str, schema: WindowSchema, arrived: Sequence[Arrived]) -> list[tuple[Arrived, str]]:
        """Count windows of one release; returns those that cannot be counted, with a sentence for a person."""
        at_once, refused = rows_at_once(schema), []
        # Side by side are those of one layout, and the windows of a device, which are added up before others see them.
        arrived = sorted(arrived, key=lambda item: (_layout(item), item.device))
        for start in range(0, len(arrived), at_once):
            block = arrived[start : start + at_once]
            columns = Columns([item.window for item in block], release, schema)
            if len(columns):
                whole = len(columns) == len(block)
                self._add_columns(block if whole else [block[place] for place in columns.places], columns)
            for place in columns.odd:
                try:
                    self._add_alone(schema, block[place])
                except InsightsError as error:
                    refused.append((block[place], str(error)))
        return refused

    def _add_alone(self, schema: WindowSchema, item: Arrived) -> None:
        window = Window.from_wire(item.window, schema)
        (start,), ages = self._insights.intervals_of([window.end], [item.skew_s], self._now)
        self._counted.additions.add(item.channel, float(start), window)
        self._counted.additions.add_labels(item.device, item.channel, float(start), window)
        self._counted.count(item.device, {**count_window(window), "windows": 1}, class_counts(window))
        if self._observing:
            self._counted.seen.append(Seen.of(item.device, item.channel, window))
        self._note_ages([item], ages)

    def _add_columns(self, arrived: Sequence[Arrived], columns: Columns) -> None:
        ends, skews = [head.end for head in columns.heads], [item.skew_s for item in arrived]
        starts, ages = self._insights.intervals_of(ends, skews, self._now)
        rows: defaultdict[tuple[str, str, float], list[int]] = defaultdict(list)
        devices: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
        for row, (item, head, start) in enumerate(zip(arrived, columns.heads, starts.tolist(), strict=True)):
            rows[item.channel, head.segment, start].append(row)
            devices[item.device, item.channel, head.segment].append(row)
        for (channel, segment, start), chosen in rows.items():
            self._counted.additions.add(channel, start, columns.total(chosen, segment), len(chosen))
        self._add_devices(columns, devices)
        self._note_ages(arrived, ages)

    def _add_devices(self, columns: Columns, rows: Mapping[tuple[str, str, str], Sequence[int]]) -> None:
        groups = list(rows.values())
        names, channels, segments = zip(*rows, strict=True)
        counts, classes = (columns.sums(groups, name).tolist() for name in ("counts", "classes"))
        for device, group, own, predicted in zip(names, groups, counts, classes, strict=True):
            self._counted.count(device, {**dict(zip(COUNTS, own, strict=True)), "windows": len(group)}, predicted)
        if self._observing:
            starts = [min([columns.heads[row].start for row in group]) for group in groups]
            ends = [max([columns.heads[row].end for row in group]) for group in groups]
            arrays = {name: columns.sums(groups, name) for name in LIGHT if name in columns.arrays}
            self._counted.seen.append(Seen(columns.release, names, channels, segments, starts, ends, arrays))

    def _note_ages(self, arrived: Sequence[Arrived], ages: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        misdated = np.isnan(ages)
        for row in np.flatnonzero(misdated).tolist():
            self._counted.count(arrived[row].device, {"misdated": 1})
        if misdated.any():
            self._counted.tally["misdated"] += int(misdated.sum())
        known = ages[~misdated]
        numbers = np.bincount(np.searchsorted(AGE_BOUNDS_S, known), minlength=len(AGE_BOUNDS_S) + 1)
        self._counted.ages.add(numbers.tolist(), float(known.sum()))


def _layout(item: Arrived) -> str:
    """What the window says of its layout, where that is a text."""
    text = item.window.get("layout")
    return text if type(text) is str else ""
