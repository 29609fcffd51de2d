"""The drift watch: compares each release's windows with what is normal, and raises and closes alarms.

A release is watched while it is current on a channel or is rolled out there. Its intervals are cut into stretches that
are large enough to compare; each is compared once, with the profile and with the previous days. How far a release was
evaluated, its streak and its alarm change in one transaction, so a killed hub neither skips a stretch nor counts one
twice.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloud_hub import drift_records
from cloud_hub.alarms import Alarms, Evidence
from cloud_hub.channels import Channel, Channels
from cloud_hub.drift_records import Watch
from cloud_hub.drift_references import BASELINE_FACTOR, Before, filled, light, without_reference
from cloud_hub.drift_rules import Stretch, cut
from cloud_hub.insights_store import InsightStore
from cloud_hub.policy import DriftPolicy
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from edgeloop.insights import AspectDrift, DriftReport, Profile, Window, compare
from edgeloop.insights.alarming import alpha_of
from edgeloop.insights.suggest import suggest

log = logging.getLogger(__name__)

#: An interval is evaluated when it has been over for this long, so that windows on their way are in it; or for the
#: length of an interval, where that is shorter. What comes later still counts in every total.
GRACE_S = 5.0
#: Stretches of one release that are compared in one tick, so that a backlog does not hold up the others.
STRETCHES_A_TICK = 20
PROFILE = "profile"


@dataclass(frozen=True)
class Finding:
    """What the comparisons of one stretch said: reports by what the window was compared with."""

    reports: Mapping[str, DriftReport]

    @property
    def drifted(self) -> bool:
        """Whether anything moved."""
        return any(report.drifted for report in self.reports.values())

    @property
    def moved(self) -> list[tuple[str, AspectDrift]]:
        """The aspects that moved, and against what."""
        return [(against, aspect) for against, report in self.reports.items() for aspect in report.moved]

    def evidence(self, profile: Profile) -> Evidence:
        """What an alarm of the fleet says."""
        moved = self.moved
        return Evidence(
            aspects=[{"against": against, **vars(aspect)} for against, aspect in moved],
            p_value=min((report.p_value for report in self.reports.values()), default=1.0),
            suggestion=suggest([aspect for _, aspect in moved], scope="fleet", input_width=profile.input_width),
        )

    def plain(self) -> dict[str, Any]:
        """All comparisons, plain."""
        return {
            against: {
                "drifted": report.drifted,
                "reference_size": report.reference_size,
                "aspects": [vars(aspect) for aspect in report.aspects],
            }
            for against, report in self.reports.items()
        }


class DriftWatch:
    """Watches the releases of every channel.

    Args:
        db: the records.
        channels: which releases are watched, and by which policy.
        releases: their profiles.
        insights: their windows.
        alarms: where alarms are raised.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        insights: InsightStore,
        alarms: Alarms,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._channels, self._releases, self._clock = db, channels, releases, clock
        self._insights, self._alarms = insights, alarms
        self._before = Before(db, insights, alarms)

    def tick(self, now: float | None = None) -> None:
        """Evaluate what is new on every channel; a channel that fails does not hold up the others."""
        now = self._clock() if now is None else now
        for channel in self._channels.all():
            try:
                self._close_left_behind(channel, now)
                for release in _watched(channel):
                    self._evaluate(channel, release, now)
            except Exception:
                log.exception(
                    "the windows of channel %s could not be evaluated; the next tick tries again", channel.name
                )

    def reports(self, channel: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The latest report of each release on each channel, the newest first."""
        with self._db.read() as connection:
            return [watch.report for watch in drift_records.all_watches(connection, channel) if watch.report]

    def _close_left_behind(self, channel: Channel, now: float) -> None:
        for alarm in self._alarms.open_on(channel.name):
            if alarm.release not in _watched(channel):
                with self._db.begin() as connection:
                    self._alarms.close(connection, alarm, "the channel has left this release", now)
                log.info("alarm %s on %s: closed, the channel has left the release", alarm.id, channel.name)

    def _evaluate(self, channel: Channel, release: str, now: float) -> None:
        profile = self._releases.profile(release)
        if profile is None:
            return
        policy, length = channel.policy.drift, self._insights.interval_s
        over = math.floor((now - min(GRACE_S, length)) / length) * length
        with self._db.read() as connection:
            watch = drift_records.find_watch(connection, channel.name, release)
            counts = drift_records.interval_counts(connection, channel.name, release, watch.cursor, over)
        stretches = cut(counts, length_s=length, min_predictions=policy.min_predictions, min_s=policy.interval_s)
        for stretch in stretches[:STRETCHES_A_TICK]:
            watch = self._take(watch, stretch, profile, policy, now)

    def _take(self, watch: Watch, stretch: Stretch, profile: Profile, policy: DriftPolicy, now: float) -> Watch:
        """Compare one stretch and write what follows from it."""
        merged = self._insights.merged(watch.channel, watch.release, stretch.since, stretch.until)
        if merged is None:
            raise LookupError(f"the windows from {stretch.since} to {stretch.until} are gone")
        window = light(merged)
        baseline = None if watch.baseline is None else Window.from_bytes(watch.baseline, profile.schema)
        enough = BASELINE_FACTOR * policy.min_predictions
        ready = baseline if baseline is not None and baseline.predictions >= enough else None
        finding = self._compare(watch, window, profile, policy, ready, stretch)
        streak = watch.streak.next(stretch.since, stretch.until, finding.drifted)
        if ready is None and not finding.drifted and without_reference(profile.reference):
            baseline = window if baseline is None else baseline.merge(window)
        after = replace(
            watch,
            cursor=stretch.until,
            streak=streak,
            evaluations=watch.evaluations + 1,
            evaluated_at=now,
            baseline=None if baseline is None else baseline.to_bytes(),
        )
        report = {
            "channel": watch.channel,
            "release": watch.release,
            "evaluated_at": now,
            "since": stretch.since,
            "until": stretch.until,
            "predictions": window.predictions,
            "drifted": finding.drifted,
            "streak": streak.drifted,
            "learning": [] if ready is not None else list(without_reference(profile.reference)),
            "against": finding.plain(),
        }
        return self._write(replace(after, report=report), finding, profile, policy, now)

    def _compare(
        self,
        watch: Watch,
        window: Window,
        profile: Profile,
        policy: DriftPolicy,
        baseline: Window | None,
        stretch: Stretch,
    ) -> Finding:
        references = {PROFILE: filled(profile.reference, baseline)}
        before = self._before.references(watch.channel, watch.release, profile.schema, stretch)
        enough = BASELINE_FACTOR * policy.min_predictions
        references |= {name: window for name, window in before.items() if window.predictions >= enough}
        alpha = alpha_of(
            stretch.until - stretch.since,
            alarms_per_year=policy.false_alarms_per_year,
            consecutive=policy.consecutive,
            at_most=policy.alpha,
        )
        return Finding(
            {
                against: compare(
                    window,
                    reference,
                    profile.schema,
                    alpha=alpha / len(references),
                    min_effect=policy.min_effect,
                    input_names=profile.input_names,
                )
                for against, reference in references.items()
            }
        )

    def _write(self, watch: Watch, finding: Finding, profile: Profile, policy: DriftPolicy, now: float) -> Watch:
        streak, evidence = watch.streak, finding.evidence(profile)
        with self._db.begin() as connection:
            drift_records.write_watch(connection, watch)
            alarm = next(iter(self._alarms.open_on(watch.channel, watch.release)), None)
            if alarm is not None and finding.drifted:
                self._alarms.note(connection, alarm, seen=watch.cursor, evidence=evidence)
            elif alarm is not None and streak.clears():
                reason = f"{streak.quiet} comparisons in a row saw no drift"
                self._alarms.close(connection, alarm, reason, now)
                log.info("alarm %s on %s: closed, %s", alarm.id, watch.channel, reason)
            elif alarm is None and streak.raises(policy.consecutive):
                since, settled = streak.since, streak.settled
                alarm = self._alarms.raise_alarm(
                    connection,
                    watch.channel,
                    watch.release,
                    since=watch.cursor if since is None else since,
                    settled=watch.cursor if settled is None else settled,
                    seen=watch.cursor,
                    now=now,
                    evidence=evidence,
                )
                log.warning("alarm %s on %s: %s; %s", alarm.id, watch.channel, alarm.summary, alarm.suggestion)
        return watch


def _watched(channel: Channel) -> Sequence[str]:
    """Digests of the releases that are watched on a channel: the current one, and the candidate."""
    candidate = None if channel.rollout is None else channel.rollout.candidate
    return [digest for digest in dict.fromkeys((channel.current, candidate)) if digest is not None]
