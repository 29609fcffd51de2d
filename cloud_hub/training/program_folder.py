"""The folder of a run by a program: what the program is given, what it leaves, what an interrupted attempt had done.

::

    dataset/        all labelled samples of the run, the held-out ones included: the hub's alone
    given/base/     the base package without its validation set
    given/data/     the rows to train on, as Parquet
    program/        the program's own: it starts in work/, leaves its model in output/, and may keep in checkpoints/
                    what it needs to go on when the hub is started again; of a search, search/trial-…/ likewise
    package/        the candidate

The validation set and the held-out rows are what the gate measures a candidate on, so a program is given neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from cloud_hub.training.dataset import HOLDOUT, TRAINING, Dataset, Datasets
from cloud_hub.training.trainer import Job, TrainingError
from edgeloop.package import Package, PackageError, audit_model_in_child
from edgeloop.whole_files import write_whole

#: Name of the file that a program leaves, and of the folder in which it may keep what it needs to go on.
MODEL, CHECKPOINTS = "model.onnx", "checkpoints"


class ProgramFolder:
    """A run's folder.

    Args:
        job: the run.
    """

    def __init__(self, job: Job) -> None:
        self._job, self.root = job, job.folder
        self.package = self.root / "package"

    # ── what is given ─────────────────────────────────────────────────────────────────────────

    def dataset(self, datasets: Datasets) -> Dataset:
        """The run's data; those of an interrupted attempt, where there was one.

        Raises:
            TrainingError: there is nothing to train on, or nothing to measure with.
        """
        folder, told = self.root / "dataset", self.root / "dataset.json"
        if told.is_file():
            found = json.loads(told.read_bytes())
            return Dataset(folder, **{**found, "labels_per_class": tuple(found["labels_per_class"])})
        shutil.rmtree(folder, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)
        job = self._job
        written = datasets.write(folder, channel=job.channel, base=job.base, since=job.since, until=job.until)
        if not written.training or not written.holdout:
            raise TrainingError(
                f"of {written.training + written.holdout} labelled samples {written.holdout} are held out; "
                "both kinds are needed, so wait for more"
            )
        plain = {name: value for name, value in vars(written).items() if name != "folder"}
        write_whole(told, json.dumps(plain).encode())
        return written

    @property
    def held_out(self) -> Path:
        """The rows that the gate's figures are measured on."""
        return self.root / "dataset" / HOLDOUT

    @cached_property
    def base(self) -> Path:
        """A copy of the base package: releases are folders of hard links, which no audit of a foreign package takes."""
        copy = self.root / "base"
        if not copy.is_dir():
            _copy(self._job.base.root, copy)
        return copy

    def give(self, place: Path, dataset: Dataset, parameters: Mapping[str, Any], seconds: float) -> Path:
        """Lay out what a program reads; returns the file that tells it so.

        Args:
            place: a folder: of the run, or of one trial of a search.
            dataset: the run's.
            parameters: the program's.
            seconds: that it has.
        """
        given = self.root / "given"
        if not (given / "base").is_dir():
            validation = self._job.base.meta.validation
            hidden = None if validation is None else self._job.base.asset(validation)
            _copy(self._job.base.root, given / "base", hidden)
        if not (given / "data").is_dir():
            with _appearing(given / "data") as folder:
                folder.mkdir()
                shutil.copyfile(self.root / "dataset" / TRAINING, folder / TRAINING)
        (place / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        told = place / "job.json"
        told.write_text(
            json.dumps(
                {
                    "base": str(given / "base"),
                    "data": str(given / "data"),
                    "output": str(place / "output" / MODEL),
                    "checkpoints": str(place / CHECKPOINTS),
                    "parameters": dict(parameters),
                    "seed": self.seed(dataset),
                    "labels": list(self._job.base.meta.labels),
                    "inputs": [asdict(spec) for spec in self._job.base.meta.inputs],
                    "outputs": [asdict(spec) for spec in self._job.base.meta.outputs],
                    "seconds": seconds,
                },
                indent=1,
            )
        )
        return told

    def seed(self, dataset: Dataset) -> int:
        """A number in 0…2^31-1 that is the same for the same data and the same base."""
        both = f"{self._job.base.digest} {dataset.sha256}".encode()
        return int.from_bytes(hashlib.sha256(both).digest()[:4], "big") >> 1

    # ── what is left ──────────────────────────────────────────────────────────────────────────

    def take(self, place: Path) -> Path:
        """The model that a program has left, after its audit.

        Raises:
            TrainingError: there is none, or it is not what a device may run.
        """
        output = place / "output"
        if output.is_symlink() or not (output / MODEL).is_file():
            raise TrainingError(f"the program left no {MODEL}; it has to write it to `output` of {place.name}/job.json")
        try:
            audit_model_in_child(output / MODEL)
        except PackageError as error:
            raise TrainingError(f"the program's {MODEL} is refused: {'; '.join(error.problems)}") from error
        return output / MODEL

    def spent(self) -> float:
        """Seconds that the program has taken in all attempts so far."""
        try:
            return float(json.loads((self.root / "spent.json").read_bytes()))
        except (OSError, ValueError):
            return 0.0

    def spend(self, seconds: float) -> None:
        """Add to them."""
        write_whole(self.root / "spent.json", json.dumps(self.spent() + seconds).encode())

    def open_package(self) -> Package:
        """The candidate."""
        return Package.open(self.package)


def sha256_of(model: Path) -> str:
    """64 hex digits over a model and the files beside it."""
    found = hashlib.sha256()
    for path in sorted(model.parent.iterdir()):
        with path.open("rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def _copy(source: Path, target: Path, without: Path | None = None) -> None:
    """A folder's files, as files of their own."""
    with _appearing(target) as folder:
        shutil.copytree(source, folder, ignore=lambda root, names: [n for n in names if Path(root, n) == without])


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder to be made beside its place: it appears there whole, or a hub that was killed makes it anew."""
    beside = target.with_name(f".{target.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    yield beside
    beside.rename(target)
