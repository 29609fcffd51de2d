"""Training runs: when one starts, what it does, what becomes of it.

One worker does one run after another. Each state is written before it is acted on; a run that is found in the middle
when the hub starts was interrupted, is failed with that reason, and may be started again at once. The
release's rollout starts in one transaction with the run's last state: no run is released without a rollout.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cloud_hub.access import audit
from cloud_hub.alarms import FLEET, Alarm, Alarms
from cloud_hub.channels import Channel, Channels
from cloud_hub.errors import BadRequest, Conflict, HubError, NotFound
from cloud_hub.policy import GatePolicy
from cloud_hub.ports import Sealer
from cloud_hub.records.database import Database
from cloud_hub.releases import Release, Releases
from cloud_hub.rollouts import Rollouts
from cloud_hub.sealing import Unsigned
from cloud_hub.training import run_records as records
from cloud_hub.training.gate import Evidence, Verdict, judge
from cloud_hub.training.policy import ACTIVE, Trigger, trigger
from cloud_hub.training.run_records import EVALUATING, FAILED, QUEUED, REFUSED, RELEASED, TRAINING, Run
from cloud_hub.training.trainer import Candidate, Job, Trainer, TrainingError
from cloud_hub.training.versions import next_version
from edgeloop import __version__
from edgeloop.provenance import Material, Origin

log = logging.getLogger(__name__)

#: Heads of refused candidates that are kept for a look at them.
KEPT_HEADS = 20
#: Runs of a channel that the trigger looks at: more than a policy can allow in a day is not needed.
RUNS_LOOKED_AT = 500
#: Facts of a candidate that its provenance tells.
TOLD = ("trainer", "method", "regularisation")
_INTERRUPTED = "the hub was stopped during the run"


class Training:
    """The training runs of a hub.

    Runs that the last process left in the middle are failed here.

    Args:
        db: the records.
        channels: whose current release is retrained, by which policy.
        releases: takes the candidates that pass.
        alarms: what triggers a run.
        rollouts: rolls candidates out.
        folder: for candidates in the making, and what is kept of refused ones.
        trainers: that a channel's policy may name.
        sealer: answers for the releases that pass.
        record: keeps how a release was made.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        alarms: Alarms,
        rollouts: Rollouts,
        folder: Path,
        trainers: Sequence[Trainer],
        *,
        sealer: Sealer | None = None,
        record: Callable[[Origin], None] = lambda origin: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sealer, self._record = sealer or Unsigned(), record
        self._db, self._channels, self._releases = db, channels, releases
        self._trainers = {trainer.name: trainer for trainer in trainers}
        self._alarms, self._rollouts, self._folder, self._clock = alarms, rollouts, folder, clock
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    def request(self, channel: str, reason: str = "by hand") -> Run:
        """Queue a run by hand, whatever the channel's trigger is.

        Raises:
            NotFound: there is no such channel.
            Conflict: a run or a rollout is under way on it.
            BadRequest: it has no release, or no labels have arrived.
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
            alarm = self._alarm(target)
            labels = self._labels(target, alarm)
            if labels == 0:
                raise BadRequest("no labels have arrived", "POST /edgeloop/v1/feedback at an agent takes them")
            return self._queue(target, reason, alarm, labels, self._clock())

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

    def tick(self, now: float | None = None) -> None:
        """Queue the runs that are due, then do what is queued, one run after another."""
        now = self._clock() if now is None else now
        for channel in self._channels.all():
            self._consider(channel, now)
        with self._db.read() as connection:
            queued = records.in_state(connection, QUEUED)
        for run in queued:
            self._do(run)

    def outlook(self, channel: str) -> Trigger:
        """Whether a run would start by itself on a channel now, and why, or what it waits for; raises `NotFound`."""
        return self._trigger(self._channels.get(channel), self._clock())[0]

    # ── when ──────────────────────────────────────────────────────────────────────────────────

    def _consider(self, channel: Channel, now: float) -> None:
        if not self._trigger(channel, now)[0].start:
            return
        with self._db.begin():  # asked again inside: somebody may have started a run or a rollout meanwhile
            channel = self._channels.get(channel.name)
            decision, alarm, labels = self._trigger(channel, now)
            if decision.start:
                self._queue(channel, decision.reason, alarm, labels, now)

    def _trigger(self, channel: Channel, now: float) -> tuple[Trigger, Alarm | None, int]:
        alarm, labels, runs = self._alarm(channel), 0, list[Run]()
        if alarm is not None:  # most of the time there is none, and nothing has to be read each second
            labels = self._labels(channel, alarm)
            with self._db.read() as connection:
                runs += records.newest(connection, channel.name, RUNS_LOOKED_AT)
        decision = trigger(
            channel.policy.retraining,
            now,
            alarm=None if alarm is None else alarm.id,
            labels=labels,
            runs=[run.past for run in runs],
            rolling_out=channel.rollout is not None,
        )
        return decision, alarm, labels

    def _alarm(self, channel: Channel) -> Alarm | None:
        """The open alarm on the channel's current release."""
        if channel.current is None:
            return None
        # One of some devices is theirs: they are mended, the fleet's model is not for it.
        return next(iter(self._alarms.open_on(channel.name, channel.current, FLEET)), None)

    def _labels(self, channel: Channel, alarm: Alarm | None) -> int:
        if channel.current is None:
            return 0
        family = self._family(channel.current)
        with self._db.read() as connection:
            return records.labels_since(connection, channel.name, family, None if alarm is None else alarm.since)

    def _family(self, digest: str) -> Sequence[str]:
        """Releases that share the backbone of this one: the hub's own trainer changes nothing but the head."""
        known = {release.digest: release for release in self._releases.all()}
        root = _root(digest, known)
        return [found for found in known if _root(found, known) == root]

    def _queue(self, channel: Channel, cause: str, alarm: Alarm | None, labels: int, now: float) -> Run:
        with self._db.begin() as connection:
            run_id = records.insert(
                connection,
                channel=channel.name,
                cause=cause,
                parent=channel.current or "",
                alarm=None if alarm is None else alarm.id,
                labels=labels,
                now=now,
            )
            after = {"channel": channel.name, "cause": cause, "parent": channel.current}
            audit.changed(connection, "retraining.start", None, after, about=str(run_id), at=now)
        log.info("run %s on %s is queued: %s", run_id, channel.name, cause)
        return self.get(run_id)

    # ── what ──────────────────────────────────────────────────────────────────────────────────

    def _do(self, run: Run) -> None:
        """One run, to its end; whatever goes wrong is its reason."""
        try:
            self._move(run, TRAINING, started=self._clock())
            candidate = self._train(run)
            self._move(run, EVALUATING, candidate=candidate.facts)
            self._judge(run, candidate)
        except (TrainingError, HubError) as error:
            self._fail(run, str(error))
        except Exception as error:
            log.exception("run %s failed", run.id)
            self._fail(run, f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _train(self, run: Run) -> Candidate:
        channel, base = self._channels.get(run.channel), self._releases.get(run.parent)
        alarm = None if run.alarm is None else self._alarms.get(run.alarm)
        profile = self._releases.profile(run.parent)
        if profile is None:
            raise TrainingError("the release has no profile, so nothing was counted for it; build it with model-export")
        taken = [release.version for release in self._releases.all() if release.name == base.name]
        job = Job(
            run=run.id,
            channel=run.channel,
            base=self._releases.open(run.parent),
            profile=profile,
            family=self._family(run.parent),
            policy=channel.policy.retraining,
            version=next_version(base.version, taken),
            lineage={"source": {"kind": "retrained"}, "parent": run.parent, "alarm": run.alarm, "run": run.id},
            folder=self._work,
            since=_since(channel, alarm),
            settled=None if alarm is None else alarm.settled,
            until=self._clock(),
        )
        return self._trainers[channel.policy.retraining.trainer].train(job)

    def _judge(self, run: Run, candidate: Candidate) -> None:
        channel = self._channels.get(run.channel)
        policy = channel.policy.gate
        verdict = judge(candidate.evidence, policy)
        told = _plain(verdict, candidate.evidence, policy)
        if not verdict.passed:
            self._keep(run, candidate)
            self._move(run, REFUSED, ended=self._clock(), reason=verdict.summary, verdict=told)
            return
        release = self._releases.create(candidate.package.root)
        self._record(_origin(run, self._releases.get(run.parent), release, candidate, self._clock()))
        with self._db.begin():
            if self._channels.get(run.channel).current != run.parent:
                raise TrainingError("the channel was given another release during the run; start it again")
            self._sealer.adopt(self._releases.get(run.parent).ref, release.ref)
            rollout = self._rollouts.start(run.channel, release.digest, reason=f"retraining run {run.id}")
            ended = {"ended": self._clock(), "reason": verdict.summary, "verdict": told}
            self._move(run, RELEASED, release=release.digest, rollout=rollout, **ended)

    def _keep(self, run: Run, candidate: Candidate) -> None:
        """Keep a little of a refused candidate, so that a person can see what was refused."""
        if candidate.kept:
            kept = {name: np.array(array) for name, array in candidate.kept.items()}
            save_file(kept, self._folder / f"run-{run.id:08}.safetensors")
        for old in sorted(self._folder.glob("run-*.safetensors"))[:-KEPT_HEADS]:
            old.unlink(missing_ok=True)

    # ── records ───────────────────────────────────────────────────────────────────────────────

    @property
    def _work(self) -> Path:
        return self._folder / "work"

    def _move(self, run: Run, state: str, **values: Any) -> None:
        with self._db.begin() as connection:
            records.move(connection, run.id, state, **values)
        log.info("run %s on %s: %s %s", run.id, run.channel, state, values.get("reason", ""))

    def _fail(self, run: Run, reason: str) -> None:
        self._move(run, FAILED, ended=self._clock(), reason=reason)

    def _recover(self) -> None:
        """Fail what the last process left in the middle."""
        shutil.rmtree(self._work, ignore_errors=True)
        with self._db.begin() as connection:
            for run in records.in_state(connection, TRAINING, EVALUATING):
                records.move(connection, run.id, FAILED, ended=self._clock(), reason=_INTERRUPTED, interrupted=True)
                log.warning("run %s on %s: %s", run.id, run.channel, _INTERRUPTED)


def _since(channel: Channel, alarm: Alarm | None) -> float | None:
    """First interval whose labels are used: by policy since the alarm, or all there are."""
    if alarm is None or channel.policy.retraining.statistics == "all":
        return None
    return alarm.since


def _root(digest: str, known: Mapping[str, Release]) -> str:
    """The published release from which a chain of new heads has led to this one."""
    seen = set()
    while (release := known.get(digest)) and release.source == "retrained" and release.parent and digest not in seen:
        seen.add(digest)
        digest = release.parent
    return digest


def _origin(run: Run, base: Release, release: Release, candidate: Candidate, now: float) -> Origin:
    """How a new head came about, for whoever verifies the release."""
    facts = candidate.facts
    asked = {"channel": run.channel, "run": run.id, "alarm": run.alarm, "cause": run.cause}
    return Origin(
        name=release.name,
        version=release.version,
        digest=release.digest,
        builder="cloud-hub",
        parameters={**asked, **{name: _finite(value) for name, value in facts.items() if name in TOLD}},
        materials=(
            Material(f"{base.name} {base.version}", "release", base.digest.removeprefix("sha256:")),
            *candidate.materials,
        ),
        tools={"edgeloop": __version__, **{name: metadata.version(name) for name in ("numpy", "onnx", "onnxruntime")}},
        started=run.started or now,
        finished=now,
    )


def _plain(verdict: Verdict, evidence: Evidence, policy: GatePolicy) -> Mapping[str, Any]:
    figures = {**vars(evidence), **policy.model_dump()}
    finite = {name: _finite(value) for name, value in {**vars(verdict), **figures}.items()}
    return {**finite, "reasons": list(verdict.reasons)}


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be computed is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
