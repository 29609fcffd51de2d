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
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from cloud_hub import carriers, drift_records
from cloud_hub.alarms import FLEET, Alarm, Alarms, Evidence
from cloud_hub.channels import Channel, Channels
from cloud_hub.drift_findings import Finding, carried, find
from cloud_hub.drift_records import Watch
from cloud_hub.drift_references import BASELINE_FACTOR, Before, filled, light, without_reference
from cloud_hub.drift_rules import Stretch, cut
from cloud_hub.insights_store import InsightStore
from cloud_hub.light_windows import Group, LightWindows
from cloud_hub.policy import DriftPolicy
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from edgeloop.insights import Profile, Window
from edgeloop.insights.alarming import QUIET_WINDOWS, Streak, alpha_of

log = logging.getLogger(__name__)

#: An interval is evaluated when it has been over for this long, so that windows on their way are in it; or for the
#: length of an interval, where that is shorter. What comes later still counts in every total.
GRACE_S = 5.0
#: Devices are compared with one another once in so much of the policy's interval: a comparison takes 0.2 s of a
#: processor whether it is of one device or of 500, so those that are ready meanwhile wait for one another.
LOOK_SHARE = 0.1
#: Stretches of one release that are compared in one tick, so that a backlog does not hold up the others.
STRETCHES_A_TICK = 20
PROFILE = "profile"


class DriftWatch:
    """Watches the releases of every channel.

    Args:
        db: the records.
        channels: which releases are watched, and by which policy.
        releases: their profiles.
        insights: their windows.
        alarms: where alarms are raised.
        light: the latest stretch of each device and segment.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        insights: InsightStore,
        alarms: Alarms,
        light: LightWindows,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._channels, self._releases, self._clock = db, channels, releases, clock
        self._insights, self._alarms, self._light = insights, alarms, light
        self._before = Before(db, insights, alarms)
        self._looked: dict[tuple[str, str], float] = {}

    def tick(self, now: float | None = None) -> None:
        """Evaluate what is new on every channel; a channel that fails does not hold up the others."""
        now = self._clock() if now is None else now
        channels = self._channels.all()
        for channel in channels:
            try:
                self._close_left_behind(channel, now)
                for release in _watched(channel):
                    self._evaluate(channel, release, now)
            except Exception:
                log.exception(
                    "the windows of channel %s could not be evaluated; the next tick tries again", channel.name
                )
        watched = {(channel.name, release) for channel in channels for release in _watched(channel)}
        self._looked = {key: at for key, at in self._looked.items() if key in watched}
        self._light.tidy(watched)

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
        profile, group = self._releases.profile(release), self._light.group(channel.name, release)
        if profile is None or group is None:
            return
        policy, length = channel.policy.drift, self._insights.interval_s
        over = math.floor((now - min(GRACE_S, length)) / length) * length
        with self._db.read() as connection:
            watch = drift_records.find_watch(connection, channel.name, release)
            counts = drift_records.interval_counts(connection, channel.name, release, watch.cursor, over)
        key = (channel.name, release)
        if not 0 <= now - self._looked.get(key, -math.inf) < LOOK_SHARE * policy.interval_s:
            self._looked[key] = now
            if carriers.look(group, profile, filled(profile.reference, _ready(watch, profile, policy)), policy):
                self._attribute(watch, group, profile, now)
        stretches = cut(counts, length_s=length, min_predictions=policy.min_predictions, min_s=policy.interval_s)
        for stretch in stretches[:STRETCHES_A_TICK]:
            watch = self._take(watch, stretch, group, profile, policy, now)

    def _take(
        self, watch: Watch, stretch: Stretch, group: Group, profile: Profile, policy: DriftPolicy, now: float
    ) -> Watch:
        """Compare one stretch and write what follows from it."""
        merged = self._insights.merged(watch.channel, watch.release, stretch.since, stretch.until)
        if merged is None:
            raise LookupError(f"the windows from {stretch.since} to {stretch.until} are gone")
        window = light(merged)
        ready = _ready(watch, profile, policy)
        finding = self._compare(watch, window, profile, policy, ready, stretch, group)
        streak = watch.streak.next(stretch.since, stretch.until, finding.drifted)
        baseline = watch.baseline
        if ready is None and not finding.drifted and without_reference(profile.reference):
            known = None if baseline is None else Window.from_bytes(baseline, profile.schema)
            baseline = (window if known is None else known.merge(window)).to_bytes()
        after = replace(
            watch,
            cursor=stretch.until,
            streak=streak,
            evaluations=watch.evaluations + 1,
            evaluated_at=now,
            baseline=baseline,
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
            "devices": carriers.named(group, "device"),
            "segments": carriers.named(group, "segment"),
            "against": finding.plain(),
        }
        written = self._write(replace(after, report=report), finding, group, profile, policy, now)
        carriers.restarted(group)
        return written

    def _compare(
        self,
        watch: Watch,
        window: Window,
        profile: Profile,
        policy: DriftPolicy,
        baseline: Window | None,
        stretch: Stretch,
        group: Group,
    ) -> Finding:
        references = {PROFILE: filled(profile.reference, baseline)}
        before = self._before.references(watch.channel, watch.release, profile.schema, stretch)
        enough = BASELINE_FACTOR * policy.min_predictions
        references |= {name: window for name, window in before.items() if window.predictions >= enough}
        share, per_year = carriers.share_of_fleet(group), policy.false_alarms_per_year
        alpha = alpha_of(
            stretch.until - stretch.since,
            alarms_per_year=None if per_year is None else share * per_year,
            consecutive=policy.consecutive,
            at_most=share * policy.alpha,
        )
        return find(window, references, group, profile, policy, alpha=alpha)

    def _write(
        self, watch: Watch, finding: Finding, group: Group, profile: Profile, policy: DriftPolicy, now: float
    ) -> Watch:
        """What follows from a stretch of the whole fleet."""
        streak, evidence = watch.streak, finding.evidence(group, profile)
        raises = streak.raises(policy.consecutive)
        with self._db.begin() as connection:
            drift_records.write_watch(connection, watch)
            alarm = self._open(watch)
            if alarm is None:
                if raises:
                    self._raise(connection, watch, streak, evidence, now)
            elif finding.drifted and (alarm.scope == FLEET or raises):
                self._alarms.note(connection, alarm, seen=watch.cursor, evidence=evidence)
            elif alarm.scope == FLEET and streak.clears():
                self._close(connection, alarm, f"{streak.quiet} comparisons in a row saw no drift", now)
        return watch

    def _attribute(self, watch: Watch, group: Group, profile: Profile, now: float) -> None:
        """What follows from comparisons of devices and segments: they may drift while the fleet hardly does."""
        evidence, alarm = carried(group, profile), self._open(watch)
        if evidence is None and (alarm is None or alarm.scope == FLEET):
            return
        self._light.flush()  # who carries the alarm is known after a restart as well
        with self._db.begin() as connection:
            if evidence is None:
                if alarm is not None:
                    self._close(connection, alarm, f"{QUIET_WINDOWS} comparisons in a row saw no drift in any", now)
            elif alarm is None:
                self._raise(connection, watch, carriers.first(group), evidence, now)
            elif alarm.scope != FLEET:
                self._alarms.note(connection, alarm, seen=now, evidence=evidence)

    def _open(self, watch: Watch) -> Alarm | None:
        return next(iter(self._alarms.open_on(watch.channel, watch.release)), None)

    def _raise(self, connection: Connection, watch: Watch, streak: Streak, evidence: Evidence, now: float) -> None:
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

    def _close(self, connection: Connection, alarm: Alarm, reason: str, now: float) -> None:
        self._alarms.close(connection, alarm, reason, now)
        log.info("alarm %s on %s: closed, %s", alarm.id, alarm.channel, reason)


def _ready(watch: Watch, profile: Profile, policy: DriftPolicy) -> Window | None:
    """The release's own first windows, once they are enough to be a reference."""
    if watch.baseline is None:
        return None
    baseline = Window.from_bytes(watch.baseline, profile.schema)
    return baseline if baseline.predictions >= BASELINE_FACTOR * policy.min_predictions else None


def _watched(channel: Channel) -> Sequence[str]:
    """Digests of the releases that are watched on a channel: the current one, and the candidate."""
    candidate = None if channel.rollout is None else channel.rollout.candidate
    return [digest for digest in dict.fromkeys((channel.current, candidate)) if digest is not None]
