"""What is told of windows that were counted, to those who look at each device: counts in bins only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeloop.insights import Window
from edgeloop.insights.histograms import HISTOGRAM_ARRAYS
from edgeloop.insights.sizes import Array

#: The arrays of a window that are told: the rest, above all the head statistics, is far larger.
LIGHT = ("counts", "classes", *HISTOGRAM_ARRAYS)


class Seen(NamedTuple):
    """What observers are told of windows of one release that were counted together.

    Attributes:
        release: digest of the release.
        devices: who sent each, [G]; a window is the sum of those of one device, channel and segment.
        channels: that each belongs to.
        segments: of each.
        starts: of the earliest window in each, unix seconds by the device's clock.
        ends: of the latest one.
        arrays: name → int64 [G, …], of the arrays of `LIGHT`; one that none has counted is left out.
    """

    release: str
    devices: Sequence[str]
    channels: Sequence[str]
    segments: Sequence[str]
    starts: Sequence[float]
    ends: Sequence[float]
    arrays: Mapping[str, Array]

    @classmethod
    def of(cls, device: str, channel: str, window: Window) -> Seen:
        """One window."""
        arrays = {name: window.arrays[name][None] for name in LIGHT if name in window.arrays}
        return cls(window.release, [device], [channel], [window.segment], [window.start], [window.end], arrays)
