"""Training runs: which are queued, when they begin, and who may end them.

A run that is found in the middle when the hub starts was interrupted. Where its trainer can go on, it does, in the same
folder; else it is failed with that reason, and may be started again at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cloud_hub.access import audit
from cloud_hub.accuracy import FleetAccuracy
from cloud_hub.alarms import Alarms
from cloud_hub.channels import Channel, Channels
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.ports import Sealer
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.rollouts import Rollouts
from cloud_hub.sealing import Unsigned
from cloud_hub.training import run_records as records
from cloud_hub.training.conducting import Conductor
from cloud_hub.training.crew import Crew, Doing
from cloud_hub.training.policy import ACTIVE, Trigger, recipe_of, trigger
from cloud_hub.training.run_log import RunLogs
from cloud_hub.training.run_records import CANCELLED, EVALUATING, FAILED, QUEUED, TRAINING, Run
from cloud_hub.training.situations import RUNS_LOOKED_AT, Situations
from cloud_hub.training.trainer import Trainer
from edgeloop.provenance import Origin

log = logging.getLogger(__name__)

#: A run that was interrupted so often is given up: it may be what brings the hub down.
MOST_ATTEMPTS = 5
_INTERRUPTED = "the hub was stopped during the run"


class Training:
    """The training runs of a hub.

    What the last process left in the middle is failed, or queued again, here.

    Args:
        db: the records.
        channels: whose current release is retrained, by which policy.
        releases: takes the candidates that pass.
        alarms: what triggers a run.
        accuracy: likewise.
        rollouts: rolls candidates out.
        folder: for candidates in the making, logs, and what is kept of refused candidates.
        trainers: that a channel's policy may name.
        at_once: runs at the same time, of different models.
        sealer: answers for the releases that pass.
        record: keeps how a release was made.
        stopped: why no run may start on a channel now, or "": a budget is spent.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        alarms: Alarms,
        accuracy: FleetAccuracy,
        rollouts: Rollouts,
        folder: Path,
        trainers: Sequence[Trainer],
        *,
        at_once: int = 2,
        sealer: Sealer | None = None,
        record: Callable[[Origin], None] = lambda origin: None,
        stopped: Callable[[str], str] = lambda channel: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stopped = stopped
        self._db, self._channels, self._releases, self._clock = db, channels, releases, clock
        by_name = {trainer.name: trainer for trainer in trainers}
        folder.mkdir(parents=True, exist_ok=True)
        self.crew, self._logs = Crew(at_once), RunLogs(folder / "logs")
        self._situations = Situations(db, releases, alarms, accuracy, by_name, clock=clock)
        self._conductor = Conductor(
            db,
            channels,
            releases,
            alarms,
            rollouts,
            by_name,
            self._logs,
            folder,
            sealer=sealer or Unsigned(),
            record=record,
            clock=clock,
        )
        self._trainers: Mapping[str, Trainer] = by_name
        self._recover()

    # ── by hand ───────────────────────────────────────────────────────────────────────────────

    def request(self, channel: str, reason: str = "by hand") -> Run:
        """Queue a run by hand, whatever the channel's triggers are.

        Raises:
            NotFound: there is no such channel.
            Conflict: a run or a rollout is under way on it.
            BadRequest: it has no release, or no labels have arrived, or this hub does not have its trainer.
        """
        with self._db.begin() as connection:
            target = self._channels.get(channel)
            if target.current is None:
                raise BadRequest(f"the channel {channel} has no release to retrain", "publish one into it first")
            if any(run.state in ACTIVE for run in records.newest(connection, channel, RUNS_LOOKED_AT)):
                raise Conflict(f"a run is under way on {channel}", "GET /api/v1/retraining shows it")
            if target.rollout is not None:
                raise Conflict(
                    f"the rollout {target.rollout.id} is under way on {channel}", "wait for its end, or abort it"
                )
            if spent := self._stopped(channel):
                raise Conflict(spent, "raise the budget: PUT /api/v1/costs/settings")
            if (name := target.policy.retraining.trainer) not in self._trainers:
                raise BadRequest(
                    f"this hub has no trainer {name}; it has {', '.join(self._trainers)}",
                    "name another one in the channel's policy, or set it up in the hub's settings",
                )
            alarm = self._situations.alarm(target)
            labels = self._situations.labels(target, None if alarm is None else alarm.since)
            if labels == 0:
                raise BadRequest("no labels have arrived", "POST /edgeloop/v1/feedback at an agent takes them")
            return self._queue(target, Trigger(True, reason), None if alarm is None else alarm.id, labels)

    def cancel(self, run_id: int, reason: str = "by hand") -> Run:
        """End a run; its trainer is told to stop, and whatever it still does leads nowhere.

        Raises:
            NotFound: there is no such run.
            Conflict: it has ended already.
        """
        now = self._clock()
        with self._db.begin() as connection:
            run = self.get(run_id)
            try:
                records.move(connection, run_id, CANCELLED, ended=now, reason=f"cancelled: {reason}")
            except records.Ended as ended:
                raise Conflict(str(ended), "nothing is left to cancel") from ended
            before, after = {"state": run.state}, {"state": CANCELLED, "reason": reason}
            audit.changed(connection, "retraining.cancel", before, after, about=str(run_id), at=now)
        if (doing := self.crew.find(run_id)) is not None:
            doing.stop()
        else:
            self._conductor.forget(run_id)  # one that was interrupted, and waited to go on
        self._logs.add(run_id, f"cancelled: {reason}", now)
        log.info("run %s on %s is cancelled: %s", run_id, run.channel, reason)
        return self.get(run_id)

    # ── what there is ─────────────────────────────────────────────────────────────────────────

    def get(self, run_id: int) -> Run:
        """The run; raises `NotFound`."""
        with self._db.read() as connection:
            run = records.find(connection, run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}", "GET /api/v1/retraining lists them")
        return run

    def newest(self, channel: str | None = None, limit: int = 200) -> Sequence[Run]:
        """Runs, the newest first."""
        with self._db.read() as connection:
            return records.newest(connection, channel, limit)

    def doing(self, run_id: int) -> Doing | None:
        """How far a run is that is under way."""
        return self.crew.find(run_id)

    def lines(self, run_id: int, limit: int = 200) -> list[str]:
        """The last lines of a run's log; raises `NotFound` where there is no such run."""
        return self._logs.lines(self.get(run_id).id, limit)

    def outlook(self, channel: str) -> Trigger:
        """Whether a run would start by itself on a channel now, and why, or what it waits for; raises `NotFound`."""
        found = self._channels.get(channel)
        if spent := self._stopped(channel):
            return Trigger(False, spent)
        return trigger(found.policy.retraining, self._clock(), self._situations.of(found)[0])

    # ── by itself ─────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float | None = None) -> None:
        """Queue the runs that are due, and begin what is queued; a channel that fails does not hold up the others."""
        now = self._clock() if now is None else now
        for channel in self._channels.all():
            try:
                self._consider(channel, now)
            except Exception:
                log.exception("whether %s is to be retrained cannot be said; the next tick tries again", channel.name)
        with self._db.read() as connection:
            queued = records.in_state(connection, QUEUED)
        for run in queued:
            model = self._releases.get(run.parent).name
            self.crew.take(run.id, model, lambda doing, run=run: self._conductor.conduct(run, doing))  # type: ignore[misc]

    def stop(self, timeout_s: float) -> None:
        """Have every run end, for the hub's own stop; a run that can goes on at the next start."""
        self.crew.stop(timeout_s)

    def _consider(self, channel: Channel, now: float) -> None:
        if self._stopped(channel.name):
            return
        if not trigger(channel.policy.retraining, now, self._situations.of(channel)[0]).start:
            return
        with self._db.begin():  # asked again inside: somebody may have started a run or a rollout meanwhile
            channel = self._channels.get(channel.name)
            found, alarm = self._situations.of(channel)
            decision = trigger(channel.policy.retraining, now, found)
            if decision.start:
                self._queue(channel, decision, None if alarm is None else alarm.id, found.labels)

    def _queue(self, channel: Channel, why: Trigger, alarm: int | None, labels: int) -> Run:
        parent, now = channel.current or "", self._clock()
        with self._db.begin() as connection:
            run_id = records.insert(
                connection,
                channel=channel.name,
                cause=why.reason,
                trigger=why.cause or "",
                parent=parent,
                alarm=alarm,
                labels=labels,
                recipe=recipe_of(channel.policy, parent),
                now=now,
            )
            after = {"channel": channel.name, "cause": why.reason, "parent": parent}
            audit.changed(connection, "retraining.start", None, after, about=str(run_id), at=now)
        self._logs.add(run_id, f"queued: {why.reason}", now)
        self._logs.tidy()
        log.info("run %s on %s is queued: %s", run_id, channel.name, why.reason)
        return self.get(run_id)

    def _recover(self) -> None:
        """Queue or fail what the last process left in the middle."""
        with self._db.begin() as connection:
            for run in records.in_state(connection, TRAINING, EVALUATING):
                if run.attempts < MOST_ATTEMPTS and self._conductor.resumable(run):
                    records.move(connection, run.id, QUEUED, reason=_INTERRUPTED)
                    told = f"{_INTERRUPTED}; it goes on"
                else:
                    records.move(connection, run.id, FAILED, ended=self._clock(), reason=_INTERRUPTED, interrupted=True)
                    self._conductor.forget(run.id)
                    told = _INTERRUPTED
                self._logs.add(run.id, told, self._clock())
                log.warning("run %s on %s: %s", run.id, run.channel, told)
            queued = records.in_state(connection, QUEUED)
        self._conductor.tidy({run.id for run in queued})
