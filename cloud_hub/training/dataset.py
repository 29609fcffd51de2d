"""The port of datasets: a folder of Parquet that a training program reads, and the facts that its lineage tells.

The folder holds `TRAINING` and `HOLDOUT` and nothing else. The held-out rows are in a file of their own, so that they
need not be given to the program that trains: it could learn them by heart. Columns of both:

* one for each input of the model, by its name: a number where a row is one, else a fixed-size list of numbers,
  row-major, of the model's own type; a string for an input of texts (BYTES).
* ``label``: int64, the class's index in the package's labels.
* ``weight``: float64, the inverse of the chance with which the row was drawn, clipped.
* ``device_group``: int64, one of sixteen groups of devices by a hash of their names; no name is in a dataset.
* ``taken``: float64, unix seconds.
* ``holdout``: bool, the same in all rows of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeloop.package import Package
from edgeloop.provenance import Material

#: Names of the two files.
TRAINING, HOLDOUT = "training.parquet", "holdout.parquet"
#: Groups of devices.
GROUPS = 16
#: Columns that are of no input; an input may not be called so.
COLUMNS = ("label", "weight", "device_group", "taken", "holdout")


@dataclass(frozen=True)
class Dataset:
    """A dataset that is written.

    Attributes:
        folder: where it is.
        training: rows in `TRAINING`.
        holdout: rows in `HOLDOUT`.
        labels_per_class: rows of each class, in both.
        sha256: 64 hex digits over the rows in an order that depends on them alone: the same rows give the same digest,
            whatever library wrote the files.
        facts: for lineage and provenance, plain: since, until, groups of devices, sources of labels, what was left out.
    """

    folder: Path
    training: int
    holdout: int
    labels_per_class: tuple[int, ...]
    sha256: str
    facts: Mapping[str, Any]

    @property
    def material(self) -> Material:
        """As a release's provenance names it."""
        rows = {"rows": self.training + self.holdout, "holdout": self.holdout}
        return Material("samples", "data", self.sha256, {**rows, **self.facts})


class Datasets(Protocol):
    """Whoever has labelled inputs."""

    def count(self, *, channel: str, since: float | None) -> int:
        """Labelled samples of a channel, taken ``since`` or ever; asked every second, so it reads counts."""

    def write(self, folder: Path, *, channel: str, base: Package, since: float | None, until: float) -> Dataset:
        """Write what there is for a run.

        Args:
            folder: does not exist yet.
            channel: whose samples.
            base: the release that is retrained: a row has to fit its inputs, and a label its classes.
            since: unix seconds at which the first row was taken, at least; None for any.
            until: unix seconds; what came later belongs to the next run.

        Raises:
            TrainingError: there are no labelled samples; the message says what to do.
        """
