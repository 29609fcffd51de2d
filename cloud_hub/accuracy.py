"""How right a fleet's answers are: expected before labels, by audits, and by labels, of what is stored in windows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud_hub.channels import Channels
from cloud_hub.insights_store import InsightStore
from cloud_hub.releases import Releases
from edgeloop.insights import Window
from edgeloop.insights.accuracy import Accuracy, assess

#: What the metrics show is of so many seconds before now, and is worked out no more often than this.
RECENT_S, FRESH_S = 3600.0, 30.0
#: A stretch that holds every time there is.
_ALL_S = 1e12


@dataclass(frozen=True)
class Stretch:
    """What was answered by one release in one stretch of time.

    Attributes:
        channel: the channel.
        release: digest.
        segment: of the windows, or "" for all of them.
        start: unix seconds.
        predictions: answers.
        accuracy: of these.
    """

    channel: str
    release: str
    segment: str
    start: float
    predictions: int
    accuracy: Accuracy


class FleetAccuracy:
    """Reads windows, and adds them up as finely as somebody asks.

    Args:
        channels: which there are.
        releases: their profiles.
        insights: the merged windows.
        clock: unix seconds.
    """

    def __init__(
        self,
        channels: Channels,
        releases: Releases,
        insights: InsightStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._channels, self._releases, self._insights, self._clock = channels, releases, insights, clock
        self._recent: tuple[float, Sequence[Stretch]] = (-math.inf, ())

    def stretches(
        self,
        channel: str,
        release: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        step_s: float,
        by_segment: bool = False,
    ) -> list[Stretch]:
        """What each release's answers are worth, stretch by stretch.

        Args:
            channel: the channel.
            release: only this one's.
            since: first interval start, unix seconds.
            until: interval start that is no longer taken, unix seconds.
            step_s: length of a stretch, seconds; a stretch begins at a multiple of it.
            by_segment: whether segments are kept apart.

        Returns:
            By start, release and segment; releases without a profile are left out.
        """
        sums: dict[tuple[float, str, str], Window] = {}
        for row in self._insights.rows(channel, release, since, until):
            window = row.window if by_segment else row.window.without_segment()
            key = (math.floor(row.start / step_s) * step_s, window.release, window.segment)
            sums[key] = window if key not in sums else sums[key].merge(window)
        found = []
        for (start, digest, segment), window in sorted(sums.items()):
            if (profile := self._releases.profile(digest)) is not None:
                assessed = assess(window, profile)
                found.append(Stretch(channel, digest, segment, start, window.predictions, assessed))
        return found

    def recent(self) -> Sequence[Stretch]:
        """Of the last hour, each channel's releases; kept for half a minute, since scrapers ask often."""
        now = self._clock()
        if now - self._recent[0] >= FRESH_S:
            found = [
                stretch
                for channel in self._channels.all()
                for stretch in self.stretches(channel.name, since=now - RECENT_S, step_s=_ALL_S)
            ]
            self._recent = (now, found)
        return self._recent[1]
