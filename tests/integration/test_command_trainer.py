"""The ``command`` trainer with real programs: from labelled samples to a package like its base, or to a reason.

The base is the digits package; what the fleet sees is mirrored digits, on which the base is at a loss.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.policy import RetrainingPolicy
from cloud_hub.programs import TrainingProgram
from cloud_hub.training.command_trainer import CommandTrainer
from cloud_hub.training.dataset import TRAINING
from cloud_hub.training.program_folder import ProgramFolder
from cloud_hub.training.trainer import Cancelled, Candidate, Job, TrainingError
from edgeloop.package import Package
from tests.doubles import training_program
from tests.doubles.digits import splits
from tests.doubles.sampled import Sampled
from tests.integration.digits_package import digits_package

__all__ = ["digits_package"]

POLICY = RetrainingPolicy(trainer="command", program="ridge")


@pytest.fixture(scope="module")
def samples() -> Sampled:
    """Mirrored digits."""
    test = splits().test
    return Sampled(test.x.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64), test.y)


def program(mode: str = "", **settings: Any) -> TrainingProgram:
    parameters = {"mode": mode} if mode else {}
    # By its file, as a user's own program is: the folder that tests run in is not on the program's path.
    command = (sys.executable, "-P", training_program.__file__)
    return TrainingProgram(command=command, spare_bytes=0, parameters=parameters, **settings)


def job(base: Package, folder: Path, stopped: Callable[[], bool] = lambda: False, **values: Any) -> Job:
    said: list[tuple[str, float | None]] = values.pop("said", [])
    profile = base.profile()
    assert profile is not None
    return Job(
        run=7,
        channel="stable",
        base=base,
        profile=profile,
        family=[base.digest],
        policy=POLICY,
        version="1.0.0+r1",
        lineage={"source": {"kind": "retrained"}, "parent": base.digest, "alarm": 3, "run": 7},
        folder=folder,
        since=None,
        settled=None,
        until=values.pop("until", 1.8e9),
        say=lambda line, share: said.append((line, share)),
        stopped=stopped,
    )


@pytest.fixture(scope="module", name="made")
def made_once(package: Package, samples: Sampled, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    trainer = CommandTrainer({"ridge": program()}, samples)
    return trainer.train(job(package, tmp_path_factory.mktemp("runs") / "whole"))


def test_the_candidate_is_a_package_like_its_base(made: Candidate, package: Package, samples: Sampled) -> None:
    meta, before = made.package.meta, package.meta
    assert (made.package.name, made.package.version) == (package.name, "1.0.0+r1")
    assert (meta.labels, meta.inputs) == (before.labels, before.inputs)
    assert (meta.golden["inputs"], meta.validation) == (before.golden["inputs"], before.validation)
    assert meta.profile is not None and meta.profile != before.profile
    lineage = meta.lineage
    assert (lineage["parent"], lineage["run"], lineage["alarm"]) == (package.digest, 7, 3)
    assert lineage["trainer"]["name"] == "command" and lineage["trainer"]["program"] == "ridge"
    assert lineage["samples"]["training"] == len(samples.y) * 3 // 4 + 1


def test_the_hub_measures_it_on_rows_that_the_program_was_not_given(made: Candidate, samples: Sampled) -> None:
    evidence = made.evidence
    assert evidence.holdout_labels == len(samples.y) // 4
    assert evidence.candidate_accuracy is not None and evidence.candidate_accuracy > 0.85
    assert evidence.current_accuracy is not None and evidence.current_accuracy < 0.7
    assert evidence.candidate_error is not None and evidence.current_error is not None
    assert evidence.candidate_error < evidence.current_error
    given = made.package.root.parent / "given"
    assert [path.name for path in (given / "data").iterdir()] == ["training.parquet"]
    assert Package.open(given / "base").validation() is None


def test_what_it_was_made_of_and_what_it_took_is_told(made: Candidate) -> None:
    assert made.facts["trainer"] == "command" and made.facts["method"] == "ridge"
    assert made.facts["seconds"] > 0 and made.facts["cost"] == 0 and made.facts["result"] > 0.85
    assert [material.kind for material in made.materials] == ["data", "model"]


def test_a_run_that_the_hub_interrupts_goes_on_and_gives_the_same_bytes(
    made: Candidate, package: Package, samples: Sampled, tmp_path: Path
) -> None:
    """The first attempt is stopped half way; the second finds its data and its checkpoint, whatever the time is now."""
    folder, said, written = tmp_path / "run", list[tuple[str, float | None]](), samples.written
    trainer = CommandTrainer({"ridge": _once(program())}, samples)
    with pytest.raises(Cancelled):
        trainer.train(job(package, folder, (folder / "program/checkpoints/begun").exists))
    candidate = trainer.train(job(package, folder, said=said, until=1.9e9))
    assert samples.written == written + 1
    assert ("going on from the checkpoint", None) in said
    assert candidate.package.digest == made.package.digest


def test_data_that_a_killed_hub_has_laid_out_by_half_are_laid_out_anew(
    package: Package, samples: Sampled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copyfile = ProgramFolder(job(package, tmp_path / "run")), shutil.copyfile
    dataset = folder.dataset(samples)

    def killed(source: Any, target: Any, **more: Any) -> Any:
        if Path(target).name != TRAINING:
            return copyfile(source, target, **more)
        Path(target).write_bytes(b"PAR1")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", killed)
        folder.give(tmp_path / "run" / "program", dataset, {}, 60.0)
    told = json.loads(folder.give(tmp_path / "run" / "program", dataset, {}, 60.0).read_bytes())
    assert Path(told["data"], TRAINING).read_bytes() == (tmp_path / "run" / "dataset" / TRAINING).read_bytes()


def _once(whole: TrainingProgram) -> TrainingProgram:
    """It stops half way at its first attempt; and its parameters, which are a part of the lineage, are the same."""
    return whole.model_copy(update={"environment": {"TEST_MODE": "once"}})


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("crash", "status 1; its last line: no room at the inn"),
        ("broken", "refused: model.onnx is not ONNX"),
        ("link", "no plain file of its own"),
        ("other", "cannot be packaged like the base: .* the model takes"),
    ],
)
def test_a_program_that_fails_is_the_runs_reason(
    mode: str, reason: str, package: Package, samples: Sampled, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=reason):
        CommandTrainer({"ridge": program(mode)}, samples).train(job(package, tmp_path / "run"))
    assert not (tmp_path / "run" / "package").exists()


def test_a_program_that_hangs_is_ended_in_its_time(package: Package, samples: Sampled, tmp_path: Path) -> None:
    """Its time is the run's: what an hour of it costs and may cost say how much."""
    hangs = program("hang", cost_per_hour=3600.0, max_cost=2.0, grace_s=0.2)
    with pytest.raises(TrainingError, match="took longer than its"):
        CommandTrainer({"ridge": hangs}, samples).train(job(package, tmp_path / "run"))
    with pytest.raises(TrainingError, match="has taken the 2 s"):
        CommandTrainer({"ridge": hangs}, samples).train(job(package, tmp_path / "run"))


def test_a_policy_names_a_program_that_an_operator_has_named(
    package: Package, samples: Sampled, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="no training program 'ridge': it knows other"):
        CommandTrainer({"other": program()}, samples).train(job(package, tmp_path / "run"))
    elsewhere = program().model_copy(update={"runner": "ray"})
    with pytest.raises(TrainingError, match="runs on ray"):
        CommandTrainer({"ridge": elsewhere}, samples).train(job(package, tmp_path / "run"))


def test_without_rows_to_train_and_to_measure_there_is_no_run(
    package: Package, samples: Sampled, tmp_path: Path
) -> None:
    few = Sampled(samples.x[:2], samples.y[:2])
    with pytest.raises(TrainingError, match="of 2 labelled samples 0 are held out"):
        CommandTrainer({"ridge": program()}, few).train(job(package, tmp_path / "run"))


def test_what_a_program_reads_is_the_same_for_the_same_data(made: Candidate) -> None:
    told = json.loads((made.package.root.parent / "program" / "job.json").read_text())
    assert set(told) == {
        *("base", "data", "output", "checkpoints", "parameters", "seed", "labels", "inputs", "outputs", "seconds")
    }
