"""What the trigger rule looks at, read from the records: no more than a channel's policy asks for, each second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import func, select

from cloud_hub.accuracy import FleetAccuracy
from cloud_hub.alarms import FLEET, Alarm, Alarms
from cloud_hub.channels import Channel
from cloud_hub.records.database import Database
from cloud_hub.records.tables import windows
from cloud_hub.releases import Releases
from cloud_hub.training import run_records as records
from cloud_hub.training.family import family
from cloud_hub.training.policy import FEWEST_ANSWERS, Level, Situation, last_verdict, recipe_of
from cloud_hub.training.trainer import Trainer
from edgeloop.insights.accuracy import Accuracy

#: Runs of a channel that the trigger looks at: more than a policy can allow in a day is not needed.
RUNS_LOOKED_AT = 500
#: The accuracy of late is worked out anew after this share of its length: it reads whole windows.
ANEW = 1 / 120
#: A stretch that holds every time there is.
_ALL_S = 1e12


class Situations:
    """How channels are.

    Args:
        db: the records.
        releases: which there are.
        alarms: which are open.
        accuracy: how right the fleet's answers are.
        trainers: by name.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        releases: Releases,
        alarms: Alarms,
        accuracy: FleetAccuracy,
        trainers: Mapping[str, Trainer],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._releases, self._alarms = db, releases, alarms
        self._accuracy, self._trainers, self._clock = accuracy, trainers, clock
        self._known: dict[str, tuple[float, str, Level | None]] = {}

    def of(self, channel: Channel) -> tuple[Situation, Alarm | None]:
        """How a channel is, and the alarm that a run would answer."""
        policy, digest = channel.policy.retraining, channel.current
        alarm = self.alarm(channel)
        if digest is None or not policy.trigger or (policy.trigger == ("drift",) and alarm is None):
            return Situation(), alarm  # most of the time: nothing has to be read each second
        with self._db.read() as connection:
            runs = [run.past for run in records.newest(connection, channel.name, RUNS_LOOKED_AT)]
        last = last_verdict(runs)
        asked = set(policy.trigger)
        found = Situation(
            alarm=None if alarm is None else alarm.id,
            labels=self.labels(channel, None if alarm is None else alarm.since),
            new_labels=self.labels(channel, None if last is None else last.created) if "labels" in asked else 0,
            accuracy=self._level(channel, digest, policy.lately_s) if "accuracy" in asked else None,
            escalated=self._escalated(channel.name, digest, policy.lately_s) if "escalation" in asked else None,
            made=self._releases.get(digest).created,
            runs=runs,
            rolling_out=channel.rollout is not None,
            recipe=recipe_of(channel.policy, digest),
        )
        return found, alarm

    def alarm(self, channel: Channel) -> Alarm | None:
        """The open alarm on the channel's current release."""
        if channel.current is None:
            return None
        # One of some devices is theirs: they are mended, the fleet's model is not for it.
        return next(iter(self._alarms.open_on(channel.name, channel.current, FLEET)), None)

    def labels(self, channel: Channel, since: float | None) -> int:
        """Labels that the channel's trainer would have, from a time on; 0 where this hub has no such trainer."""
        trainer = self._trainers.get(channel.policy.retraining.trainer)
        if channel.current is None or trainer is None:
            return 0
        return trainer.labels(channel.name, self.family(channel.current), since)

    def family(self, digest: str) -> Sequence[str]:
        """Releases that share the backbone of this one, newest first."""
        return family(digest, self._releases.all())

    def _level(self, channel: Channel, digest: str, lately_s: float) -> Level | None:
        now = self._clock()
        known = self._known.get(channel.name)
        if known is None or known[1] != digest or not 0 <= now - known[0] < lately_s * ANEW:
            stretches = self._accuracy.stretches(channel.name, digest, since=now - lately_s, step_s=_ALL_S)
            level = level_of(stretches[0].accuracy) if stretches else None
            known = self._known[channel.name] = (now, digest, level)
        return known[2]

    def _escalated(self, channel: str, digest: str, lately_s: float) -> Level | None:
        table = windows.c
        here = (table.channel == channel, table.release == digest, table.interval_start >= self._clock() - lately_s)
        with self._db.read() as connection:
            row = connection.execute(
                select(func.sum(table.predictions).label("rows"), func.sum(table.escalations).label("sent")).where(
                    *here
                )
            ).one()
        rows, sent = int(row.rows or 0), int(row.sent or 0)
        if not rows:
            return None
        share = sent / rows
        return Level(share, min(1.0, share + 2.0 * math.sqrt(share * (1.0 - share) / rows)), "count", rows)


def level_of(accuracy: Accuracy) -> Level | None:
    """The best figure there is: audits are drawn at random; labels that somebody chose, weighted; else the estimate."""
    estimate = accuracy.estimate
    for source, share in (
        ("audits", accuracy.audits.accuracy),
        ("labels", accuracy.labels.weighted),
        ("estimate", estimate.expected if estimate.trusted else None),
    ):
        if share is not None and share.rows >= FEWEST_ANSWERS:
            return Level(share.value, share.high, source, share.rows)
    return None
