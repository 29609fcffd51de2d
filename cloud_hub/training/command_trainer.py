"""The ``command`` trainer: the user's own program makes the model, the hub all the rest.

It gets the base package and a folder of labelled samples, and leaves an ONNX file. That file is as hostile as any from
outside: it is audited, rebuilt into a package by the base's own recipe, and measured on rows that the program has not
seen, each in a process of its own. ``docs/how-to/retrain-with-your-own-program.md`` tells the user's side.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloud_hub.programs import TrainingProgram
from cloud_hub.training.bounded import Call, ChildRunner, Limits, Runner, run
from cloud_hub.training.dataset import Dataset, Datasets
from cloud_hub.training.gate import Evidence
from cloud_hub.training.held_out import measure
from cloud_hub.training.program_folder import ProgramFolder, sha256_of
from cloud_hub.training.program_lines import Line
from cloud_hub.training.rebuilding import rebuild
from cloud_hub.training.search import search
from cloud_hub.training.trainer import Candidate, Job, TrainingError
from edgeloop.package import Package
from edgeloop.provenance import Material
from edgeloop.whole_files import write_whole

#: Seconds between two notes of the time that a program has taken: so much is lost when the hub is killed.
NOTED_EVERY_S = 5.0
#: Seconds that the hub itself may take to build a package of the model, and to measure it.
OWN_S = 900.0
#: Of a run's progress, the share that is the program's; then the package is built, and measured.
PROGRAMS_SHARE, BUILT_SHARE = 0.8, 0.9


class CommandTrainer:
    """Implements `Trainer`.

    Args:
        programs: that an operator lets the hub start, by name.
        datasets: who has labelled inputs.
        runners: where programs run, by name; ``child`` is always there.
    """

    name = "command"
    resumable = True

    def __init__(
        self, programs: Mapping[str, TrainingProgram], datasets: Datasets, runners: Mapping[str, Runner] | None = None
    ) -> None:
        self._programs, self._datasets = programs, datasets
        self._here = ChildRunner()
        self._runners: Mapping[str, Runner] = {"child": self._here, **(runners or {})}

    def labels(self, channel: str, family: Sequence[str], since: float | None) -> int:
        """Labelled samples of a channel, whatever release answered them."""
        return self._datasets.count(channel=channel, since=since)

    def train(self, job: Job) -> Candidate:
        """A package around the program's model."""
        name = job.policy.program
        program = self._programs.get(name)
        if program is None:
            known = f"it knows {', '.join(self._programs)}" if self._programs else "it knows none"
            raise TrainingError(f"the hub has no training program {name!r}: {known}; see its setting training_programs")
        runner = self._runners.get(program.runner)
        if runner is None:
            raise TrainingError(f"the program {name} runs on {program.runner}, which the hub's settings do not name")
        folder = ProgramFolder(job)
        dataset = folder.dataset(self._datasets)
        job.uses(dataset.material)
        training = _Training(job, name, program, runner, folder, dataset)
        model = training.model()
        package, evidence = self._package(training, model), self._evidence(training)
        material = Material(model.path.name, "model", model.sha256, {"program": name, "parameters": model.parameters})
        return Candidate(package, evidence, training.facts(model), (dataset.material, material))

    def _package(self, training: _Training, model: Model) -> Package:
        job, folder = training.job, training.folder
        training.say(Line("the model is rebuilt into a package", BUILT_SHARE))
        return rebuild(
            self._here,
            model.path,
            folder.base,
            folder.root / "dataset",
            folder.package,
            version=job.version,
            lineage={**job.lineage, "trainer": training.trainer(model), "samples": training.samples()},
            limits=training.own_limits,
            say=lambda line: job.say(line, None),
            stopped=job.stopped,
        )

    def _evidence(self, training: _Training) -> Evidence:
        folder = training.folder
        training.say(Line("the candidate is measured on the rows that were held out", BUILT_SHARE))
        return measure(
            self._here,
            base=folder.base,
            candidate=folder.package,
            rows=folder.held_out,
            limits=training.own_limits,
            stopped=training.job.stopped,
        )


@dataclass(frozen=True)
class Model:
    """What a program has left.

    Attributes:
        path: the ONNX file, audited.
        sha256: of it and its tensors.
        parameters: that the program was given.
        result: what it said of itself, or None.
        trials: of a search; 0 without one.
    """

    path: Path
    sha256: str
    parameters: Mapping[str, Any]
    result: float | None
    trials: int = 0


class _Training:
    """One run of one program."""

    def __init__(
        self, job: Job, name: str, program: TrainingProgram, runner: Runner, folder: ProgramFolder, dataset: Dataset
    ) -> None:
        self.job, self.folder = job, folder
        self._name, self._program, self._runner, self._dataset = name, program, runner, dataset
        self._noted = time.monotonic()

    def model(self) -> Model:
        """The model: of this attempt, or of one that had come so far before it was interrupted."""
        told = self.folder.root / "trained.json"
        if told.is_file():
            found = json.loads(told.read_bytes())
            return Model(**{**found, "path": Path(found["path"])})
        program, root = self._program, self.folder.root
        if program.search is None:
            place, parameters, trials = root / "program", dict(program.parameters), 0
            result = self._attempt(place, parameters, self.say)
        else:
            found = search(program.search, root / "search", self.folder.seed(self._dataset), self._trial, self.job.say)
            place, result, trials = found.place, found.result, found.trials
            parameters = {**program.parameters, **found.parameters}
        path = self.folder.take(place)
        model = Model(path, sha256_of(path), parameters, result, trials)
        write_whole(told, json.dumps({**asdict(model), "path": str(path)}).encode())
        return model

    def _trial(self, place: Path, parameters: Mapping[str, Any]) -> float:
        """One trial of a search: what its program says of its result."""
        result = self._attempt(
            place, {**self._program.parameters, **parameters}, lambda line: self.job.say(line.text, None)
        )
        if result is None:
            raise TrainingError(f"{self._name} said no result, which a search goes by: a line such as `result 0.93`")
        self.folder.take(place)
        return result

    def _attempt(self, place: Path, parameters: Mapping[str, Any], say: Callable[[Line], None]) -> float | None:
        """Run the program once; the last result that it has said."""
        results: list[float] = []

        def heard(line: Line) -> None:
            if line.result is not None:
                results[:] = [line.result]
            say(line)

        limits, program = self._limits(), self._program
        told = self.folder.give(place, self._dataset, parameters, limits.seconds)
        call = Call(
            f"the program {self._name}",
            program.command,
            place,
            told,
            limits,
            program.environment,
            program.cpus,
            program.gpus,
        )
        self._noted = time.monotonic()
        try:
            run(self._runner, call, heard, self._stopped)
        finally:
            self._note()
        return results[0] if results else None

    # ── limits ────────────────────────────────────────────────────────────────────────────────

    @property
    def own_limits(self) -> Limits:
        """Of what the hub does with the model."""
        return self._within(OWN_S)

    def _limits(self) -> Limits:
        """What is left of what the program may take.

        Raises:
            TrainingError: its time is over.
        """
        most = self._program.seconds
        left = most - self.folder.spent()
        if left <= 0:
            raise TrainingError(f"the run has taken the {most:g} s that {self._name} may take")
        return self._within(left)

    def _within(self, seconds: float) -> Limits:
        program = self._program
        return Limits(
            seconds,
            memory_bytes=program.memory_bytes,
            disk_bytes=program.disk_bytes,
            spare_bytes=program.spare_bytes,
            log_bytes=program.log_bytes,
            grace_s=program.grace_s,
        )

    def _stopped(self) -> bool:
        """Whether the run has to end; asked often, so that time is noted here."""
        if time.monotonic() - self._noted >= NOTED_EVERY_S:
            self._note()
        return self.job.stopped()

    def _note(self) -> None:
        """Keep how long the program has taken."""
        now = time.monotonic()
        self.folder.spend(now - self._noted)
        self._noted = now

    # ── what is told ──────────────────────────────────────────────────────────────────────────

    def say(self, line: Line) -> None:
        """A line of the program, or of the hub."""
        share = line.share
        self.job.say(line.text, share if share is None or share == BUILT_SHARE else share * PROGRAMS_SHARE)

    def samples(self) -> dict[str, Any]:
        """The data, for lineage."""
        data = self._dataset
        counts = {"sha256": data.sha256, "training": data.training, "holdout": data.holdout}
        return {**counts, "labels_per_class": list(data.labels_per_class), **data.facts}

    def trainer(self, model: Model) -> dict[str, Any]:
        """The trainer, for lineage: nothing that differs between two runs on the same data."""
        told = {"name": CommandTrainer.name, "program": self._name, "model": model.sha256}
        return {**told, "parameters": dict(model.parameters), "trials": model.trials, "result": model.result}

    def facts(self, model: Model) -> dict[str, Any]:
        """What was made, from what, and what it took."""
        seconds = self.folder.spent()
        return {
            "trainer": CommandTrainer.name,
            "method": self._name,
            "version": self.job.version,
            "model": model.sha256,
            "parameters": dict(model.parameters),
            "result": model.result,
            "trials": model.trials,
            "data": self.samples(),
            "seconds": round(seconds, 1),
            "cost": round(self._program.cost(seconds), 6),
        }
