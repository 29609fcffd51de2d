"""Datasets of samples: what fits, in an order of its own, held-out rows apart, the same rows with the same digest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from cloud_hub.samples.dataset import MOST_WEIGHT, SampleDatasets, group_of
from cloud_hub.samples.files import SampleFiles
from cloud_hub.samples.store import SampleStore, Wanted
from cloud_hub.training.dataset import COLUMNS, GROUPS, HOLDOUT, TRAINING, Dataset
from cloud_hub.training.trainer import TrainingError
from edgeloop.insights import holdout_share
from edgeloop.package import Package
from edgeloop.protocol import Sample
from edgeloop.protocol.inputs import Tensor
from tests.doubles.new_records import new_records

ROWS, CLASSES = 60, 10


def sample(number: int, **changed: Any) -> Sample:
    """A labelled sample; the same number gives the same."""
    values: dict[str, Any] = {
        "device": f"dev-{number % 7}",
        "epoch": 1,
        "number": number + 1,
        "channel": "stable",
        "release": "sha256:" + "1" * 64,
        "id": f"p{number}",
        "form": "input",
        "tensors": {"x": Tensor.of(np.random.default_rng(number).random(64).astype(np.float32))},
        "strategy": "random",
        "probability": 0.5 if number % 2 else 0.05,
        "predicted": 0,
        "confidence": 0.5,
        "taken": 1000.0 + number,
    }
    return Sample(**{**values, **changed})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    found = open_store(tmp_path)
    yield found
    found._db.close()


def open_store(folder: Path) -> SampleStore:
    db = new_records(folder)
    return SampleStore(db, SampleFiles(folder / "samples"), most_bytes=1 << 30)


def fill(store: SampleStore, numbers: Any = range(ROWS)) -> None:
    for number in numbers:
        assert store.add(sample(number), number % CLASSES, None)


def write(store: SampleStore, base: Package, folder: Path, since: float | None = None) -> Dataset:
    return SampleDatasets(store).write(folder, channel="stable", base=base, since=since, until=2000.0)


def read(dataset: Dataset, name: str) -> Any:
    return parquet.read_table(dataset.folder / name)


def test_every_labelled_row_is_in_one_of_two_files(store: SampleStore, package: Package, tmp_path: Path) -> None:
    fill(store)
    dataset = write(store, package, tmp_path / "dataset")
    assert sorted(path.name for path in dataset.folder.iterdir()) == [HOLDOUT, TRAINING]
    held = {number for number in range(ROWS) if holdout_share(f"p{number}")}
    assert (dataset.holdout, dataset.training) == (len(held), ROWS - len(held)) and dataset.holdout > 5
    assert dataset.labels_per_class == (ROWS // CLASSES,) * CLASSES
    seen = set()
    for name, expected in ((TRAINING, False), (HOLDOUT, True)):
        table = read(dataset, name)
        assert table.column_names == ["x", *COLUMNS]
        assert json.loads(table.schema.field("x").metadata[b"shape"]) == [64]
        for row in table.to_pylist():
            number = int(row["taken"] - 1000)
            seen.add(number)
            assert row["holdout"] is expected and (number in held) is expected
            assert row["label"] == number % CLASSES and row["device_group"] == group_of(f"dev-{number % 7}")
            assert np.array_equal(np.float32(row["x"]), np.random.default_rng(number).random(64).astype(np.float32))
    assert seen == set(range(ROWS))
    assert dataset.facts["labels_from"] == {"device": ROWS} and dataset.facts["left_out"] == {}
    assert dataset.material.sha256 == dataset.sha256 and dataset.material.kind == "data"
    assert not [text for text in (json.dumps(dataset.facts),) if "dev-" in text], "no device is named"


def test_the_same_rows_give_the_same_bytes_of_meaning_in_whatever_order_they_came(
    store: SampleStore, package: Package, tmp_path: Path
) -> None:
    fill(store)
    other = open_store(tmp_path / "other")
    fill(other, reversed(range(ROWS)))
    first, second = write(store, package, tmp_path / "one"), write(other, package, tmp_path / "two")
    assert first.sha256 == second.sha256 and first.facts == second.facts
    for name in (TRAINING, HOLDOUT):
        assert read(first, name).equals(read(second, name))
    other.add(sample(ROWS), 3, None)
    assert write(other, package, tmp_path / "three").sha256 != first.sha256
    other._db.close()


def test_weights_undo_the_chances_and_are_clipped(store: SampleStore, package: Package, tmp_path: Path) -> None:
    fill(store, range(20))
    store.add(sample(20, probability=1e-6), 0, None)
    weights = {}
    dataset = write(store, package, tmp_path / "dataset")
    for name in (TRAINING, HOLDOUT):
        weights |= {int(row["taken"] - 1000): row["weight"] for row in read(dataset, name).to_pylist()}
    assert weights[0] / weights[1] == pytest.approx(10) and weights[20] == MOST_WEIGHT


def test_what_does_not_fit_the_model_is_left_out_and_counted(
    store: SampleStore, package: Package, tmp_path: Path
) -> None:
    fill(store, range(12))
    odd = {
        "features": {"form": "features", "tensors": {"f": Tensor.of(np.zeros(16, np.float32))}},
        "inputs": {"tensors": {"x": Tensor.of(np.zeros(64))}},
        "label": {},
        "unreadable": {},
    }
    for number, (why, changed) in enumerate(odd.items(), 100):
        store.add(sample(number, **changed), 77 if why == "label" else 1, None)
    (row,) = [row for row in store.list(Wanted()) if row.prediction == "p103"]
    store.files.path(row.sha256).write_bytes(b"damaged")
    store.add(sample(99, form="small"), 1, None)  # as large as the model wants it: it was no larger
    store.add(sample(200), None, None)
    store.add(sample(201, channel="night"), 1, None)
    store.add(sample(202, taken=5000.0), 1, None)
    dataset = write(store, package, tmp_path / "dataset", since=1002.0)
    assert dataset.facts["left_out"] == {"features": 1, "inputs": 1, "label": 1, "unreadable": 1}
    assert dataset.training + dataset.holdout == 11
    datasets = SampleDatasets(store)
    assert datasets.count(channel="stable", since=None) == 18 and datasets.count(channel="night", since=None) == 1
    store.add(sample(203, channel="night"), 1, None)
    assert datasets.count(channel="night", since=None) == 1, "it need not read them every second"


def test_without_a_labelled_sample_there_is_no_dataset(store: SampleStore, package: Package, tmp_path: Path) -> None:
    store.add(sample(1), None, None)
    with pytest.raises(TrainingError, match="keep-samples"):
        write(store, package, tmp_path / "dataset")
    store.add(sample(2, form="features"), 1, None)
    with pytest.raises(TrainingError, match=r"left out: \{\"features\": 1\}"):
        write(store, package, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_devices_share_groups_by_a_hash_of_their_names() -> None:
    groups = [group_of(f"camera-{number}") for number in range(1000)]
    assert set(groups) == set(range(GROUPS)) and group_of("camera-1") == groups[1]
