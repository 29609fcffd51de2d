"""Datasets of samples: implements `cloud_hub.training.dataset.Datasets`.

Rows are read twice and never all at once: first what fits is found and put in an order that depends on the rows alone,
then it is written, some rows at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_hub.errors import NotFound
from cloud_hub.samples.store import SampleRow, SampleStore, Wanted
from cloud_hub.training.dataset import COLUMNS, GROUPS, HOLDOUT, TRAINING, Dataset
from cloud_hub.training.trainer import TrainingError
from edgeloop.insights.shares import holdout_share
from edgeloop.package import Package, TensorSpec
from edgeloop.protocol import ProtocolError
from edgeloop.protocol.inputs import DTYPES, Tensor

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

#: A row stands for at most so many rows of mean weight.
MOST_WEIGHT = 20.0
#: Rows that are read, and written, at once: 256 pictures of 600 kB are 150 MB.
ROWS_AT_ONCE = 256
_PAGE = 1000
#: A count is asked for every second, and takes as long as reading an index.
COUNTS_HOLD_S = 5.0
_MOST_COUNTS = 256


class SampleDatasets:
    """Implements `Datasets`.

    Args:
        store: of samples.
    """

    def __init__(self, store: SampleStore) -> None:
        self._store = store
        self._counts: dict[tuple[str, float | None], tuple[float, int]] = {}

    def count(self, *, channel: str, since: float | None) -> int:
        """See `Datasets`; what it says is a few seconds old at most."""
        now, key = time.monotonic(), (channel, since)
        at, count = self._counts.get(key, (-math.inf, 0))
        if now < at + COUNTS_HOLD_S:
            return count
        count = self._store.count(Wanted(channel=channel, since=since, labelled=True))
        if len(self._counts) >= _MOST_COUNTS:
            self._counts.clear()
        self._counts[key] = now, count
        return count

    def write(self, folder: Path, *, channel: str, base: Package, since: float | None, until: float) -> Dataset:
        """See `Datasets`."""
        if clash := [spec.name for spec in base.meta.inputs if spec.name in COLUMNS]:
            raise TrainingError(f"the input {clash[0]!r} has the name of another column; rename it in the model")
        left_out: Counter[str] = Counter()
        rows = self._rows(channel, base, since, until, left_out)
        shape = _usual([shapes for _, shapes in rows])
        left_out["shape"] += sum(shapes != shape for _, shapes in rows)
        found = sorted((row for row, shapes in rows if shapes == shape), key=_order)
        if not found:
            left = f" (left out: {json.dumps(dict(+left_out))})" if +left_out else ""
            raise TrainingError(
                f"the channel {channel} has no labelled samples that fit {base.name}{left}; turn samples on in its "
                "policy and on its devices, and have them labelled: docs/how-to/keep-samples.md"
            )
        weights = _weights(found)
        digest = hashlib.sha256()
        folder.mkdir(parents=True)
        counts = {held: self._write(folder, base, found, weights, shape, held, digest) for held in (False, True)}
        classes = Counter(row.label for row in found)
        return Dataset(
            folder=folder,
            training=counts[False],
            holdout=counts[True],
            labels_per_class=tuple(classes[label] for label in range(len(base.meta.labels))),
            sha256=digest.hexdigest(),
            facts={
                "channel": channel,
                "since": min(row.taken for row in found),
                "until": max(row.taken for row in found),
                "device_groups": _counts(str(group_of(row.device)) for row in found),
                "labels_from": _counts(row.source for row in found),
                "strategies": _counts(row.strategy for row in found),
                "releases": _counts(row.release for row in found),
                "left_out": dict(sorted((+left_out).items())),
            },
        )

    def _rows(
        self, channel: str, base: Package, since: float | None, until: float, left_out: Counter[str]
    ) -> list[tuple[SampleRow, tuple[tuple[int, ...], ...]]]:
        """Rows that fit the inputs and classes, each with the shapes of its inputs."""
        wanted, after = Wanted(channel=channel, since=since, until=until, labelled=True), 0
        found = []
        while page := self._store.list(wanted, after=after, limit=_PAGE):
            after = page[-1].number
            for row in page:
                if row.form == "features":  # of the device's model: the program is to make its own
                    left_out["features"] += 1
                elif row.label is None or not 0 <= row.label < len(base.meta.labels):
                    left_out["label"] += 1
                elif (tensors := self._tensors(row, left_out)) is not None:
                    if (shapes := _fit(base.meta.inputs, tensors)) is None:
                        left_out["inputs"] += 1
                    else:
                        found.append((row, shapes))
        return found

    def _tensors(self, row: SampleRow, left_out: Counter[str]) -> dict[str, Tensor] | None:
        try:
            return self._store.files.tensors(row.sha256)
        except (NotFound, ProtocolError) as error:
            log.warning("sample %d is left out of a dataset: %s", row.number, error)
            left_out["unreadable"] += 1
            return None

    def _write(
        self,
        folder: Path,
        base: Package,
        rows: Sequence[SampleRow],
        weights: dict[int, float],
        shapes: tuple[tuple[int, ...], ...],
        held: bool,
        digest: hashlib._Hash,
    ) -> int:
        import pyarrow as pa
        from pyarrow import parquet

        mine = [row for row in rows if _held(row) == held]
        schema = _schema(base.meta.inputs, shapes)
        with parquet.ParquetWriter(folder / (HOLDOUT if held else TRAINING), schema) as writer:
            for start in range(0, len(mine), ROWS_AT_ONCE):
                some = mine[start : start + ROWS_AT_ONCE]
                columns: dict[str, Any] = {
                    "label": [row.label for row in some],
                    "weight": [weights[row.number] for row in some],
                    "device_group": [group_of(row.device) for row in some],
                    "taken": [row.taken for row in some],
                    "holdout": [held] * len(some),
                }
                for place, row in enumerate(some):
                    facts = [row.content, *(columns[name][place] for name in COLUMNS)]
                    digest.update(json.dumps(facts).encode())
                tensors = list(self._needed(some))
                for spec in base.meta.inputs:
                    columns[spec.name] = _column([one[spec.name] for one in tensors], schema.field(spec.name).type)
                writer.write_table(pa.table(columns, schema=schema))
        return len(mine)

    def _needed(self, rows: Sequence[SampleRow]) -> Iterator[dict[str, Tensor]]:
        for row in rows:
            try:
                yield self._store.files.tensors(row.sha256)
            except (NotFound, ProtocolError) as error:
                raise TrainingError(
                    f"samples were deleted while the dataset was written: {error}; try again"
                ) from error


def group_of(device: str) -> int:
    """The group of a device: the same in every dataset, and by a hash that does not name it."""
    return int.from_bytes(hashlib.sha256(device.encode()).digest()[:8], "big") % GROUPS


def _held(row: SampleRow) -> bool:
    """Whether feedback on this prediction is held out: its sample is, too."""
    return holdout_share(f"{row.prediction}/{row.row}" if row.row else row.prediction)


def _order(row: SampleRow) -> tuple[Any, ...]:
    return row.content, row.taken, row.label, row.device, row.epoch, row.sequence


def _weights(rows: Sequence[SampleRow]) -> dict[int, float]:
    """Inverse of each row's chance, so that the mean is 1, clipped."""
    inverse = {row.number: 1.0 / row.probability for row in rows}
    mean = math.fsum(inverse.values()) / len(inverse)
    return {number: min(value / mean, MOST_WEIGHT) for number, value in inverse.items()}


def _fit(specs: Sequence[TensorSpec], tensors: dict[str, Tensor]) -> tuple[tuple[int, ...], ...] | None:
    """Shapes of a row's inputs in the order of the model's, or None where they are not what it takes."""
    shapes = []
    for spec in specs:
        tensor = tensors.get(spec.name)
        if tensor is None or tensor.datatype != spec.datatype:
            return None
        wanted = () if spec.datatype == "BYTES" else tuple(spec.shape[1:])
        if len(tensor.shape) != len(wanted) or any(w not in (-1, n) for w, n in zip(wanted, tensor.shape, strict=True)):
            return None
        shapes.append(tuple(tensor.shape))
    return tuple(shapes)


def _usual(shapes: Sequence[tuple[tuple[int, ...], ...]]) -> tuple[tuple[int, ...], ...]:
    """What most rows look like; of those that are as many the first in order."""
    counts = Counter(shapes)
    return min(counts, key=lambda shape: (-counts[shape], shape), default=())


def _schema(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]]) -> pa.Schema:
    import pyarrow as pa

    fields = []
    for spec, shape in zip(specs, shapes, strict=True):
        if spec.datatype == "BYTES":
            kind = pa.string()
        else:
            number = pa.from_numpy_dtype(np.dtype(DTYPES[spec.datatype]))
            kind = number if not shape else pa.list_(number, math.prod(shape))
        facts = {"datatype": spec.datatype, "shape": json.dumps(list(shape))}
        fields.append(pa.field(spec.name, kind, nullable=False, metadata=facts))
    kinds = (pa.int64(), pa.float64(), pa.int64(), pa.float64(), pa.bool_())
    fields += [pa.field(name, kind, nullable=False) for name, kind in zip(COLUMNS, kinds, strict=True)]
    return pa.schema(fields)


def _column(tensors: Sequence[Tensor], kind: Any) -> Any:
    import pyarrow as pa

    if tensors[0].datatype == "BYTES":
        return pa.array([tensor.data.decode("utf-8", "replace") for tensor in tensors], kind)
    flat = pa.array(np.concatenate([tensor.row().reshape(-1) for tensor in tensors]))
    return flat if not tensors[0].shape else pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
