"""The device raises its own alarm, without asking anybody: the hub's comparison, on this device's windows alone.

Closed windows are added up to stretches as large as the channel's policy says, and each is compared with the profile in
the recorder's thread, when nothing waits to be counted. The code for it is imported with the first stretch. What the
law of chance takes to draw (0.12 s of a server's core and 0.4 MB were measured for a new release, 7 ms later on) is
paid there, some milliseconds at a time, and never by a request.

Streaks are in memory: an agent that starts again begins anew, and the hub has what was sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeloop.insights import HISTOGRAMS, InsightsError, Profile, Window
from edgeloop.insights.alarming import Streak, alpha_of
from edgeloop.insights.policy import DriftRule
from edgeloop.protocol import DeviceAlarm
from edgeloop.records import dataclass

if TYPE_CHECKING:
    from edgeloop.insights import DriftReport

log = logging.getLogger(__name__)

#: All that is compared: the rest of a window, the head statistics above all, is far larger.
_LOOKED_AT = (
    "counts",
    "classes",
    *(name for histogram in HISTOGRAMS for name in histogram.names),
    "feature_sum",
    "feature_squares",
)
#: Releases whose stretches are gathered: the one that serves, and the one before it.
_MOST_RELEASES = 4
_MOST_ASPECTS = 16


@dataclass
class _Gathered:
    """What one release has gathered, what its comparisons said, and its alarm."""

    window: Window
    streak: Streak
    alarm: DeviceAlarm | None = None


class OwnAlarms:
    """Alarms of this device. `add` may be called by any thread that closes windows, `look` by the recorder's.

    Args:
        profile_of: release digest → profile, or None when it is gone.
        rule: the policy's, read anew for each comparison.
        changed: called when an alarm was raised or closed.
    """

    def __init__(
        self,
        profile_of: Callable[[str], Profile | None],
        rule: Callable[[], DriftRule],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._profile_of, self._rule, self._changed = profile_of, rule, changed
        self._lock = threading.Lock()
        self._gathered: dict[str, _Gathered] = {}

    @property
    def open(self) -> tuple[DeviceAlarm, ...]:
        """The alarms that are open now."""
        with self._lock:
            return tuple(found.alarm for found in self._gathered.values() if found.alarm is not None)

    def add(self, closed: Sequence[Window]) -> None:
        """Note windows that were closed; takes microseconds."""
        with self._lock:
            for window in closed:
                light = window.only(_LOOKED_AT).without_segment()
                found = self._gathered.pop(window.release, None)
                if found is None:
                    found = _Gathered(light, Streak())
                else:
                    found.window = found.window.merge(light)
                self._gathered[window.release] = found  # the one that counted last is the last
                while len(self._gathered) > _MOST_RELEASES:
                    del self._gathered[next(iter(self._gathered))]

    def look(self) -> None:
        """Compare the stretches that are large enough."""
        rule = self._rule()
        with self._lock:
            gathered = list(self._gathered.items())
        for release, found in gathered:
            if found.window.predictions < rule.min_predictions:
                continue
            with self._lock:
                window, found.window = found.window, Window.zero(found.window.schema)
            try:
                self._compare(release, found, window, rule)
            except InsightsError as error:
                log.warning("the windows of %s cannot be compared with its profile: %s", release, error)

    def _compare(self, release: str, found: _Gathered, window: Window, rule: DriftRule) -> None:
        from edgeloop.insights import compare

        if (profile := self._profile_of(release)) is None:
            return
        report = compare(
            window,
            profile.reference,
            profile.schema,
            alpha=alpha_of(
                window.end - window.start,
                alarms_per_year=rule.false_alarms_per_year,
                consecutive=rule.consecutive,
                at_most=rule.alpha,
            ),
            min_effect=rule.min_effect,
            input_names=profile.input_names,
        )
        found.streak = found.streak.next(window.start, window.end, report.drifted)
        before = found.alarm
        if report.drifted and (before is not None or found.streak.raises(rule.consecutive)):
            since = before.since if before is not None else found.streak.since
            found.alarm = _alarm(release, window, window.start if since is None else since, report, profile)
        elif found.streak.clears():
            found.alarm = None
        if found.alarm is not None and before is None:
            log.warning("drift: %s; %s", found.alarm.moved, found.alarm.suggestion)
        elif found.alarm is None and before is not None:
            log.info("the drift of %s is gone", release)
        if found.alarm != before:
            self._changed()


def plain(alarms: Sequence[DeviceAlarm]) -> list[Mapping[str, object]]:
    """The alarms for the status document."""
    return [alarm.to_wire() for alarm in alarms]


def _alarm(release: str, window: Window, since: float, report: DriftReport, profile: Profile) -> DeviceAlarm:
    from edgeloop.insights.suggest import suggest

    moved = report.moved
    rest = f"; and {len(moved) - 3} more" if len(moved) > 3 else ""
    return DeviceAlarm(
        release=release,
        since=since,
        seen=window.end,
        aspects=tuple(aspect.name for aspect in moved[:_MOST_ASPECTS]),
        effect=moved[0].effect,
        p_value=report.p_value,
        moved=("; ".join(aspect.moved for aspect in moved[:3]) + rest)[:1000],
        suggestion=suggest(moved, scope="device", input_width=profile.input_width),
    )
