"""One training run from its beginning to its end: train, measure, judge, release.

Each state is written before it is acted on. The release's rollout starts in one transaction with the run's last state:
no run is released without a rollout. A run that somebody cancels is ended in the records at once, so whatever its
trainer still does leads nowhere; one that the hub's stop interrupts stays as it is, for the next start to decide.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cloud_hub.alarms import Alarm, Alarms
from cloud_hub.channels import Channel, Channels
from cloud_hub.errors import HubError
from cloud_hub.policy import GatePolicy
from cloud_hub.ports import Sealer
from cloud_hub.records.database import Database
from cloud_hub.releases import Release, Releases
from cloud_hub.rollouts import Rollouts
from cloud_hub.sealing import Unsigned
from cloud_hub.training import run_records as records
from cloud_hub.training.crew import Doing
from cloud_hub.training.family import family
from cloud_hub.training.gate import Evidence, Verdict, judge
from cloud_hub.training.head_trainer import HeadTrainer
from cloud_hub.training.measuring import measured
from cloud_hub.training.run_log import RunLogs
from cloud_hub.training.run_records import EVALUATING, FAILED, REFUSED, RELEASED, TRAINING, Ended, Run
from cloud_hub.training.trainer import Cancelled, Candidate, Job, Repeated, Trainer, TrainingError
from cloud_hub.training.versions import next_version
from edgeloop import __version__
from edgeloop.provenance import Material, Origin

log = logging.getLogger(__name__)

#: Small arrays of refused candidates that are kept for a look at them.
KEPT_CANDIDATES = 20
#: Facts of a candidate that its provenance tells.
TOLD = ("trainer", "method", "regularisation")


class Conductor:
    """Conducts runs, each in a thread of its own.

    Args:
        db: the records.
        channels: whose current release is retrained, by which policy.
        releases: takes the candidates that pass.
        alarms: what runs answer.
        rollouts: rolls candidates out.
        trainers: by name.
        logs: what is said of runs.
        folder: for candidates in the making, and what is kept of refused ones.
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
        trainers: Mapping[str, Trainer],
        logs: RunLogs,
        folder: Path,
        *,
        sealer: Sealer,
        record: Callable[[Origin], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._channels, self._releases, self._alarms = db, channels, releases, alarms
        self._rollouts, self._trainers, self._logs, self._folder = rollouts, trainers, logs, folder
        self._sealer, self._record, self._clock = sealer, record, clock

    def conduct(self, run: Run, doing: Doing) -> None:
        """One run, to its end; whatever goes wrong is its reason."""
        try:
            self._conduct(run, doing)
        except Ended as ended:
            log.info("%s", ended)
        except Repeated as repeated:
            self._move(run, REFUSED, ended=self._clock(), reason=str(repeated))
        except Exception as error:
            if not doing.stopped():
                self._fail(run, error)
        finally:
            if not doing.interrupted:
                self.forget(run.id)

    def resumable(self, run: Run) -> bool:
        """Whether an interrupted run can go on: its trainer can, and its channel is as it was."""
        channel = self._channels.find(run.channel)
        if channel is None or channel.current != run.parent:
            return False
        trainer = self._trainers.get(channel.policy.retraining.trainer)
        return trainer is not None and trainer.resumable and self.work(run.id).is_dir()

    def work(self, run: int) -> Path:
        """The folder of a run that is under way."""
        return self._folder / "work" / f"run-{run:08}"

    def forget(self, run: int) -> None:
        """Remove what a run has left."""
        shutil.rmtree(self.work(run), ignore_errors=True)

    def tidy(self, going_on: Collection[int]) -> None:
        """Remove what runs have left whose hub was killed before it could; not of those that go on."""
        for folder in self.work(0).parent.glob("run-*"):
            if folder not in {self.work(run) for run in going_on}:
                log.info("%s is removed: its run has ended", folder)
                shutil.rmtree(folder, ignore_errors=True)

    # ── the steps ─────────────────────────────────────────────────────────────────────────────

    def _conduct(self, run: Run, doing: Doing) -> None:
        started = run.started or self._clock()
        self._move(run, TRAINING, started=started, attempts=run.attempts + 1)
        candidate = self._train(run, doing, started)
        _go_on(doing)
        self._move(run, EVALUATING, candidate=candidate.facts)
        evidence = measured(candidate.evidence, self._releases.open(run.parent), candidate.package)
        _go_on(doing)
        self._decide(run, candidate, evidence, started)

    def _train(self, run: Run, doing: Doing, started: float) -> Candidate:
        channel, base = self._channels.get(run.channel), self._releases.get(run.parent)
        policy = channel.policy.retraining
        trainer = self._trainers.get(policy.trainer)
        if trainer is None:
            raise TrainingError(f"this hub has no trainer {policy.trainer}; set it up in its settings")
        profile = self._releases.profile(run.parent)
        if profile is None:
            raise TrainingError("the release has no profile, so nothing was counted for it; build it with model-export")
        alarm = None if run.alarm is None else self._alarms.get(run.alarm)
        releases = self._releases.all()
        folder = self.work(run.id)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(
            run=run.id,
            channel=run.channel,
            base=self._releases.open(run.parent),
            profile=profile,
            family=family(run.parent, releases),
            policy=policy,
            version=next_version(base.version, [other.version for other in releases if other.name == base.name]),
            lineage={"source": {"kind": "retrained"}, "parent": run.parent, "alarm": run.alarm, "run": run.id},
            folder=folder,
            since=_since(channel, alarm),
            settled=None if alarm is None else alarm.settled,
            until=started,
            uses=lambda data: self._check_new(run, data),
            say=lambda line, share: self._say(doing, line, share),
            stopped=doing.stopped,
        )
        return trainer.train(job)

    def _check_new(self, run: Run, data: Material) -> None:
        with self._db.begin() as connection:
            records.note_data(connection, run.id, data.sha256)
            before = records.refused_alike(connection, run.recipe, data.sha256)
        if before is not None and before.id != run.id:
            raise Repeated(
                f"run {before.id} was made of the same data in the same way, and was refused; "
                "wait for more labels, or change the channel's policy"
            )

    def _decide(self, run: Run, candidate: Candidate, evidence: Evidence, started: float) -> None:
        policy = self._channels.get(run.channel).policy.gate
        verdict = judge(evidence, policy)
        told = _plain(verdict, evidence, policy)
        if not verdict.passed:
            self._keep(run, candidate)
            self._move(run, REFUSED, ended=self._clock(), reason=verdict.summary, verdict=told)
            return
        self._still_current(run)
        release = self._releases.create(candidate.package.root)
        self._record(_origin(run, self._releases.get(run.parent), release, candidate, started, self._clock()))
        if candidate.facts.get("trainer") != HeadTrainer.name and not isinstance(self._sealer, Unsigned):
            # The hub's own key vouches for new heads alone, and devices hold every file against the base's.
            reason = f"{verdict.summary}; a publisher has to sign {release.digest}, which is more than a new head"
            self._move(run, RELEASED, release=release.digest, ended=self._clock(), reason=reason, verdict=told)
            return
        with self._db.begin():
            self._still_current(run)  # asked again inside: nothing may come between
            self._sealer.adopt(self._releases.get(run.parent).ref, release.ref)
            rollout = self._rollouts.start(run.channel, release.digest, reason=f"retraining run {run.id}")
            ended = {"ended": self._clock(), "reason": verdict.summary, "verdict": told}
            self._move(run, RELEASED, release=release.digest, rollout=rollout, **ended)

    def _still_current(self, run: Run) -> None:
        if self._channels.get(run.channel).current != run.parent:
            raise TrainingError("the channel was given another release during the run; start it again")

    # ── records ───────────────────────────────────────────────────────────────────────────────

    def _keep(self, run: Run, candidate: Candidate) -> None:
        """Keep a little of a refused candidate, so that a person can see what was refused."""
        if candidate.kept:
            kept = {name: np.array(array) for name, array in candidate.kept.items()}
            save_file(kept, self._folder / f"run-{run.id:08}.safetensors")
        for old in sorted(self._folder.glob("run-*.safetensors"))[:-KEPT_CANDIDATES]:
            old.unlink(missing_ok=True)

    def _move(self, run: Run, state: str, **values: Any) -> None:
        with self._db.begin() as connection:
            records.move(connection, run.id, state, **values)
        told = f"{state} {values.get('reason', '')}".rstrip()
        self._logs.add(run.id, told, self._clock())
        log.info("run %s on %s: %s", run.id, run.channel, told)

    def _fail(self, run: Run, error: Exception) -> None:
        expected = isinstance(error, TrainingError | HubError)
        if not expected:
            log.error("run %s failed", run.id, exc_info=error)
        try:
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            self._move(run, FAILED, ended=self._clock(), reason=reason)
        except Ended as ended:
            log.info("%s", ended)

    def _say(self, doing: Doing, line: str, share: float | None) -> None:
        doing.line = line[:500]
        doing.share = None if share is None or not math.isfinite(share) else min(max(share, 0.0), 1.0)
        self._logs.add(doing.run, line, self._clock())


def _go_on(doing: Doing) -> None:
    if doing.stopped():
        raise Cancelled("the run was ended")


def _since(channel: Channel, alarm: Alarm | None) -> float | None:
    """First interval whose labels are used: by policy since the alarm, or all there are."""
    if alarm is None or channel.policy.retraining.statistics == "all":
        return None
    return alarm.since


def _origin(run: Run, base: Release, release: Release, candidate: Candidate, started: float, now: float) -> Origin:
    """How a candidate came about, for whoever verifies the release."""
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
        started=started,
        finished=now,
    )


def _plain(verdict: Verdict, evidence: Evidence, policy: GatePolicy) -> Mapping[str, Any]:
    told = {**vars(verdict), **asdict(evidence), **policy.model_dump(), "reasons": list(verdict.reasons)}
    return dict(_finite(told))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
