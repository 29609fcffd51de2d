"""The port of datasets: a folder of Parquet that a training program reads, and the facts that its lineage tells.

The folder holds ``part-00000.parquet``, ``part-00001.parquet``, … and `FACTS`, the same facts as JSON. Columns:

* ``input.<name>`` for each input of the model: a fixed-size list of numbers, row-major, whose shape is in `FACTS` and
  in the field's metadata under ``shape``; a string for an input of texts (BYTES).
* ``label``: int32, the class's index in the package's labels.
* ``weight``: float32, the inverse of the chance with which the row was drawn, clipped.
* ``device_group``: string, sixteen groups of devices by a hash of their names; no device's name is in a dataset.
* ``taken``: float64, unix seconds.
* ``holdout``: bool, not to be trained on: the gate measures the candidate on these rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeloop.provenance import Material

if TYPE_CHECKING:
    from cloud_hub.training.trainer import Job

#: Name of the file of facts in a dataset's folder.
FACTS = "dataset.json"
#: What a column of an input begins with: an input named ``label`` is in nobody's way.
INPUT_PREFIX = "input."


@dataclass(frozen=True)
class InputFacts:
    """One input's column.

    Attributes:
        datatype: the Open Inference Protocol's name, ``FP32``, …; ``BYTES`` for texts.
        shape: of a row, without the batch's dimension.
    """

    datatype: str
    shape: Sequence[int]


@dataclass(frozen=True)
class Dataset:
    """A dataset that is written.

    Attributes:
        folder: where it is.
        sha256: 64 hex digits over its content in a canonical order: the same rows give the same digest, whatever
            library wrote the files.
        rows: all of them, those that are held out included.
        holdout: rows that are held out.
        labels: class index → rows.
        groups: group of devices → rows.
        since: unix seconds at which the first row was taken, or 0.
        until: unix seconds at which the last row was taken, or 0.
        inputs: name → its column.
        left_out: why → rows that are not in it.
    """

    folder: Path
    sha256: str
    rows: int
    holdout: int
    labels: Mapping[int, int]
    groups: Mapping[str, int]
    since: float
    until: float
    inputs: Mapping[str, InputFacts]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def files(self) -> Sequence[Path]:
        """Its Parquet files, in order."""
        return sorted(self.folder.glob("part-*.parquet"))

    def facts(self) -> dict[str, Any]:
        """All but the folder, as plain JSON."""
        return {
            "sha256": self.sha256,
            "rows": self.rows,
            "holdout": self.holdout,
            "labels": {str(label): rows for label, rows in sorted(self.labels.items())},
            "groups": dict(sorted(self.groups.items())),
            "since": self.since,
            "until": self.until,
            "inputs": {name: {"datatype": one.datatype, "shape": list(one.shape)} for name, one in self.inputs.items()},
            "left_out": dict(sorted(self.left_out.items())),
        }

    @property
    def material(self) -> Material:
        """As a release's provenance names it."""
        return Material("samples", "data", self.sha256, self.facts())


class Datasets(Protocol):
    """Whoever has labelled inputs."""

    def write(self, job: Job, folder: Path) -> Dataset:
        """Write what there is for a run: labelled samples of its family on its channel, ``since`` … ``until``.

        Args:
            job: whose data it is.
            folder: is made anew.

        Raises:
            TrainingError: there are no labelled samples; the message says what to do.
        """
