"""Reading a data file or folder: named arrays, and which of them holds the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model_export.data.arrays import read_arrow, read_npz, read_safetensors
from model_export.data.lines import read_lines
from model_export.data.pictures import holds_pictures, read_pictures
from model_export.data.splitting import representative
from model_export.data.table import Array, Table, listed, sha256_of
from model_export.errors import DataError

#: Names that are taken for the label column where ``--label-column`` does not say.
LABEL_NAMES = ("label", "labels", "y", "target")
READERS = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".csv": read_arrow,
    ".parquet": read_arrow,
    ".jsonl": read_lines,
}
SUFFIXES = tuple(READERS)
#: What a hub's dataset, a folder of Parquet files, has beside inputs and labels; the hub's reference says what each is.
#: It is known by the first: elsewhere a weight is a column like any other.
HELD_OUT, WEIGHT = "holdout", "weight"
DATASET_ONLY = (HELD_OUT, WEIGHT, "device_group", "taken")


def read_table(path: Path, label_column: str | None = None) -> Table:
    """Read a data file.

    Args:
        path: a file whose name ends in one of `SUFFIXES`, or a folder: a hub's dataset, or a folder of pictures for
            each class.
        label_column: which array or column is the true label; by default the first of `LABEL_NAMES` that is there.

    Raises:
        DataError: the file is absent, broken, of another kind, or has no labels.
        MissingLibraryError: CSV or Parquet without pyarrow.
    """
    if path.is_dir():
        return _read_pictures(path, label_column) if holds_pictures(path) else _read_dataset(path, label_column)
    if not path.is_file():
        raise DataError(f"there is no data file {path}", "check the path given with --data")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name}: the format {path.suffix or '(none)'} is not known", f"use {', '.join(SUFFIXES)}")
    arrays = reader(path)
    name = _label_name(arrays, label_column, path.name)
    labels = arrays.pop(name)
    if labels.dtype == object:
        labels = labels.astype(str)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path.name}: labels {name!r} have shape {list(labels.shape)}", "give one label a row, not one-hot rows"
        )
    uneven = [f"{n} has {len(a) if a.ndim else 0}" for n, a in arrays.items() if a.ndim == 0 or len(a) != len(labels)]
    if uneven:
        raise DataError(
            f"{path.name}: {len(labels)} labels, but {', '.join(uneven)} rows", "give every array one row each"
        )
    if not arrays:
        raise DataError(f"{path.name}: there is nothing besides the labels {name!r}", "put the model's inputs into it")
    return Table(arrays, labels, path.name, sha256_of(path))


def _read_pictures(folder: Path, label_column: str | None) -> Table:
    if label_column is not None:
        raise DataError(
            f"the pictures in {folder.name} have no column {label_column!r}",
            "leave --label-column out: the label of a picture is the name of its folder",
        )
    return read_pictures(folder)


def _read_dataset(folder: Path, label_column: str | None) -> Table:
    """The Parquet files of a folder, one after another in the order of their names."""
    files = sorted(folder.glob("*.parquet"))
    parts = [read_arrow(path) for path in files]
    if not parts:
        raise DataError(
            f"there is neither a Parquet file in {folder}, nor a folder with pictures",
            "give a file, a folder with a folder of pictures for each class, or the folder of a hub's dataset",
        )
    if uneven := [path.name for path, part in zip(files, parts, strict=True) if set(part) != set(parts[0])]:
        raise DataError(f"{uneven[0]} has other columns than {files[0].name}", "give the files of one dataset only")
    filled = [part for part in parts if len(next(iter(part.values())))] or parts[:1]
    try:
        arrays = {name: np.concatenate([part[name] for part in filled]) for name in parts[0]}
    except ValueError as error:
        raise DataError(
            f"the files in {folder} do not belong together: {error}", "give the files of one dataset only"
        ) from error
    labels = arrays.pop(_label_name(arrays, label_column, folder.name))
    held_out, rows = arrays.get(HELD_OUT), None
    if held_out is not None:
        rows = representative(np.flatnonzero(held_out), arrays.get(WEIGHT))
        arrays = {name: array for name, array in arrays.items() if name not in DATASET_ONLY}
    listed = "".join(f"{path.name} {sha256_of(path)}\n" for path in files)
    return Table(arrays, labels, folder.name, hashlib.sha256(listed.encode()).hexdigest(), rows)


def _label_name(arrays: Mapping[str, Array], wanted: str | None, file: str) -> str:
    found = wanted if wanted in arrays else None
    if wanted is None:
        found = next((n for n in LABEL_NAMES if n in arrays), None)
    if found is None:
        what = f"no column {wanted!r}" if wanted else f"no label column (looked for {', '.join(LABEL_NAMES)})"
        raise DataError(f"{file}: {what}; it has {listed(arrays)}", "name it with --label-column")
    return found
