"""Labelled samples without devices: implements `Datasets` with rows that a test has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from cloud_hub.training.dataset import GROUPS, HOLDOUT, TRAINING, Dataset
from edgeloop.package import Package


class Sampled:
    """Every fourth row is held out."""

    def __init__(self, x: Any, y: Any, weights: Any = None) -> None:
        self.x, self.y = np.asarray(x, np.float32), np.asarray(y, np.int64)
        self.weights = np.ones(len(self.y)) if weights is None else np.asarray(weights, np.float64)
        self.written = 0

    def count(self, *, channel: str, since: float | None) -> int:
        return len(self.y)

    def write(self, folder: Path, *, channel: str, base: Package, since: float | None, until: float) -> Dataset:
        self.written += 1
        folder.mkdir()
        held = np.arange(len(self.y)) % 4 == 3
        for name, rows in ((TRAINING, ~held), (HOLDOUT, held)):
            parquet.write_table(self._table(base, np.flatnonzero(rows)), folder / name)
        return Dataset(
            folder,
            int((~held).sum()),
            int(held.sum()),
            tuple(int(n) for n in np.bincount(self.y, minlength=len(base.meta.labels))),
            hashlib.sha256(self.x.tobytes() + self.y.tobytes()).hexdigest(),
            {"since": since, "until": until},
        )

    def _table(self, base: Package, rows: Any) -> Any:
        x = self.x[rows]
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x[0].size if len(x) else 1)
        return pa.table(
            {
                base.meta.inputs[0].name: column,
                "label": self.y[rows],
                "weight": self.weights[rows],
                "device_group": rows % GROUPS,
                "taken": np.full(len(rows), 1.8e9),
                "holdout": np.arange(len(self.y))[rows] % 4 == 3,
            }
        )
