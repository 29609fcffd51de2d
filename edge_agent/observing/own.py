"""What the device itself says of its accuracy: of its windows of about the last hour, whatever has left it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_agent.clock import Clock
from edgeloop.insights import HISTOGRAMS, Profile, Window
from edgeloop.records import dataclass

if TYPE_CHECKING:
    from edgeloop.insights.accuracy import Accuracy

#: Two sums are kept: the one that grows, and the one before it. Together they are of half an hour to an hour.
HALF_S = 1800.0
#: Releases that labels may still come for.
_KEPT_RELEASES = 4
_ARRAYS = (
    "counts",
    "expected",
    "expected_rows",
    "expected_labels",
    "audits",
    "audit_chances",
    *(name for histogram in HISTOGRAMS if histogram.name == "confidence" for name in histogram.names),
)


@dataclass
class _Halves:
    since: float
    growing: Window
    before: Window | None = None


class OwnAccuracy:
    """The sums, by release. It may be used from several threads.

    Args:
        clock: of the device.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sums: dict[str, _Halves] = {}

    def closed(self, windows: Sequence[Window]) -> None:
        """Windows were closed."""
        now = self._clock.monotonic()
        with self._lock:
            for window in windows:
                small = window.only(_ARRAYS).without_segment()
                halves = self._sums.pop(window.release, None)
                if halves is None:
                    halves = _Halves(now, small)
                elif now - halves.since < HALF_S:
                    halves.growing = halves.growing.merge(small)
                else:
                    halves = _Halves(now, small, halves.growing if now - halves.since < 2 * HALF_S else None)
                self._sums[window.release] = halves  # the one that counted last is the last
            while len(self._sums) > _KEPT_RELEASES:
                del self._sums[next(iter(self._sums))]

    def of(self, release: str, profile: Profile) -> Accuracy | None:
        """What the windows of a release say; None when none was closed in that time."""
        from edgeloop.insights.accuracy import assess  # an agent that nobody asks does not pay for it

        with self._lock:
            halves = self._sums.get(release)
            if halves is None or self._clock.monotonic() - halves.since >= 2 * HALF_S:
                return None
            window = halves.growing if halves.before is None else halves.before.merge(halves.growing)
        return assess(window, profile)
