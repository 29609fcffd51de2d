"""Reading labelled data: ``.npz`` without pickles, ``.safetensors``, CSV and Parquet, or a hub's dataset.

A file becomes a `Table`: named arrays with one row an example, and the labels as they are written in the file. How its
arrays become the inputs of a model is `bind`; what is written down as a label becomes a class in `class_indices`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.errors import DataError, MissingLibraryError

Array = npt.NDArray[Any]

#: Names that are taken for the label column where ``--label-column`` does not say.
LABEL_NAMES = ("label", "labels", "y", "target")
SUFFIXES = (".npz", ".safetensors", ".csv", ".parquet")
#: The share of the data that calibrates int8; the rest validates.
CALIBRATION_SHARE = 1 / 3
VALIDATION_ROWS = 2000
#: What a hub's dataset, a folder of Parquet files, has beside inputs and labels; the hub's reference says what each is.
HELD_OUT, WEIGHT = "holdout", "weight"
DATASET_ONLY = (HELD_OUT, WEIGHT, "device_group", "taken")


@dataclass(frozen=True)
class Table:
    """Labelled examples as a file holds them.

    Attributes:
        columns: arrays [N, …] by name, in the file's order, without the labels.
        labels: [N], integers or strings.
        file: the file's name without its folder.
        sha256: of the file's bytes, 64 hex digits; of a folder, of the list of its files and theirs.
        held_out: row numbers that the model was not trained on, where the data say so; else None.
    """

    columns: Mapping[str, Array]
    labels: Array
    file: str
    sha256: str
    held_out: Array | None = None

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclass(frozen=True)
class InputSpec:
    """An input of a model: its numpy dtype and shape without the batch dimension (-1: any)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def sha256_of(path: Path) -> str:
    """sha256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path, label_column: str | None = None) -> Table:
    """Read a data file.

    Args:
        path: a file whose name ends in one of `SUFFIXES`, or a folder: a hub's dataset.
        label_column: which array or column is the true label; by default the first of `LABEL_NAMES` that is there.

    Raises:
        DataError: the file is absent, broken, of another kind, or has no labels.
        MissingLibraryError: CSV or Parquet without pyarrow.
    """
    if path.is_dir():
        return _read_dataset(path)
    if not path.is_file():
        raise DataError(f"there is no data file {path}")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".csv": _read_arrow, ".parquet": _read_arrow}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name}: the format {path.suffix or '(none)'} is not known", f"use {', '.join(SUFFIXES)}")
    arrays = reader(path)
    name = _label_name(arrays, label_column, path.name)
    labels = arrays.pop(name)
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
        raise DataError(f"{path.name}: there is nothing besides the labels {name!r}")
    return Table(arrays, labels, path.name, sha256_of(path))


def _read_dataset(folder: Path) -> Table:
    """The Parquet files of a folder, one after another in the order of their names."""
    files = sorted(folder.glob("*.parquet"))
    parts = [_read_arrow(path) for path in files]
    if not parts:
        raise DataError(f"there is no Parquet file in {folder}", "give a file, or the folder of a hub's dataset")
    if uneven := [path.name for path, part in zip(files, parts, strict=True) if set(part) != set(parts[0])]:
        raise DataError(f"{uneven[0]} has other columns than {files[0].name}", "give the files of one dataset only")
    filled = [part for part in parts if len(next(iter(part.values())))] or parts[:1]
    try:
        arrays = {name: np.concatenate([part[name] for part in filled]) for name in parts[0]}
    except ValueError as error:
        raise DataError(f"the files in {folder} do not belong together: {error}") from error
    labels = arrays.pop(_label_name(arrays, None, folder.name))
    weight, held_out = arrays.get(WEIGHT), arrays.get(HELD_OUT)
    rows = None if held_out is None else representative(np.flatnonzero(held_out), weight)
    listed = "".join(f"{path.name} {sha256_of(path)}\n" for path in files)
    columns = {name: array for name, array in arrays.items() if name not in DATASET_ONLY}
    return Table(columns, labels, folder.name, hashlib.sha256(listed.encode()).hexdigest(), rows)


def representative(rows: Array, weight: Array | None) -> Array:
    """Row numbers that stand for what was drawn with unequal chances: rows of a larger weight come more often.

    Systematic resampling (Kitagawa 1996), without chance; of Kish's effective number of rows, so that they say no more
    than the weighted rows do.
    """
    if weight is None or not len(rows) or np.ptp(weight[rows]) == 0:
        return rows
    share = np.asarray(weight[rows], dtype=np.float64)
    if not (np.isfinite(share).all() and (share >= 0).all() and share.sum() > 0):
        raise DataError(f"the column {WEIGHT} holds what is no weight", "give numbers above 0")
    count = max(1, round(float(share.sum() ** 2 / np.square(share).sum())))
    places = (np.arange(count) + 0.5) / count * share.sum()
    return np.asarray(rows[np.minimum(np.searchsorted(np.cumsum(share), places), len(rows) - 1)])


def _label_name(arrays: Mapping[str, Array], wanted: str | None, file: str) -> str:
    found = wanted if wanted in arrays else None
    if wanted is None:
        found = next((n for n in LABEL_NAMES if n in arrays), None)
    if found is None:
        what = f"no column {wanted!r}" if wanted else f"no label column (looked for {', '.join(LABEL_NAMES)})"
        raise DataError(f"{file}: {what}; it has {_listed(arrays)}", "name it with --label-column")
    return found


def _listed(names: Mapping[str, Array] | Sequence[str], most: int = 12) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            hint = "save plain arrays of numbers; strings as dtype 'U', not 'O'"
            raise DataError(f"{path.name} holds pickled objects, which are never loaded", hint) from error
        raise DataError(f"{path.name} cannot be read as .npz: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"{path.name} cannot be read as .npz: {error}", "write it with numpy.savez") from error


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(f"{path.name} cannot be read as safetensors: {error}") from error


def _read_arrow(path: Path) -> dict[str, Array]:
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError as error:
        raise MissingLibraryError(
            "CSV and Parquet need pyarrow", "install it: pip install 'edgeloop[export]'; or use .npz"
        ) from error
    try:
        table = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read: {error}") from error
    return {name: _column(path.name, name, table.column(name)) for name in table.column_names}


def _column(file: str, name: str, column: Any) -> Array:
    if column.null_count:
        raise DataError(f"{file}: column {name!r} has {column.null_count} empty cells", "fill them or drop those rows")
    if column.type.num_fields and hasattr(column.type, "list_size"):
        flat = column.combine_chunks()
        return np.asarray(flat.flatten()).reshape(len(flat), column.type.list_size)
    values = column.to_pylist() if "list" in str(column.type) else column.to_numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{file}: the lists in column {name!r} differ in length") from error
    if array.dtype == object:
        if not all(isinstance(value, str) for value in array.ravel()):
            raise DataError(f"{file}: column {name!r} holds neither numbers nor strings")
        array = array.astype(str)
    return array


def bind(table: Table, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """The inputs of a model, [N, …] each, from the columns of a table.

    A column with an input's name is that input. A model of one input also takes the only column, whatever its name, or
    all columns of single numbers side by side, in the file's order.

    Raises:
        DataError: a column is missing, has another shape, holds text, or holds a number that is not finite.
    """
    columns = dict(table.columns)
    if len(specs) == 1 and specs[0].name not in columns:
        columns = {specs[0].name: _only_input(table)}
    missing = [spec.name for spec in specs if spec.name not in columns]
    if missing:
        hint = f"name the arrays as the model names its inputs: {', '.join(spec.name for spec in specs)}"
        raise DataError(f"{table.file}: no data for {', '.join(missing)}; it has {_listed(table.columns)}", hint)
    return {spec.name: _fit(table.file, columns[spec.name], spec) for spec in specs}


def _only_input(table: Table) -> Array:
    columns = table.columns
    if len(columns) == 1:
        return next(iter(columns.values()))
    wide = [name for name, array in columns.items() if array.ndim != 1]
    if wide:
        hint = "leave only that array and the labels in the file, or name it as the model names its input"
        raise DataError(f"{table.file}: which of {_listed(columns)} is the model's input?", hint)
    text = [name for name, array in columns.items() if array.dtype.kind not in "fiub"]
    if text:
        raise DataError(f"{table.file}: column {text[0]!r} holds text", "encode it as numbers or drop the column")
    return np.stack([array.astype(np.float64) for array in columns.values()], axis=1)


def _fit(file: str, array: Array, spec: InputSpec) -> Array:
    if array.dtype.kind not in "fiub" or spec.dtype.kind not in "fiub":
        raise DataError(f"{file}: {spec.name} is {array.dtype}, the model takes {spec.dtype}", "give numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataError(f"{file}: {spec.name} has a number that is not finite, first in row {row}", "drop or mend it")
    if spec.dtype.kind in "iub" and not _holds(spec.dtype, array):
        raise DataError(f"{file}: {spec.name} is {array.dtype}; its values do not fit the model's {spec.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, dtype=spec.dtype)
    if spec.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{file}: {spec.name} has numbers too large for the model's {spec.dtype}")
    return _shaped(file, array, spec)


def _holds(dtype: np.dtype[Any], array: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array_equal(array, array.astype(dtype))


def _shaped(file: str, array: Array, spec: InputSpec) -> Array:
    shape = array.shape[1:]
    if len(shape) == len(spec.shape) and all(want in (-1, have) for want, have in zip(spec.shape, shape, strict=True)):
        return array
    # A flat row of the right length is the common way to store images in a table.
    if -1 not in spec.shape and np.prod(shape, dtype=np.int64) == np.prod(spec.shape, dtype=np.int64):
        return array.reshape(len(array), *spec.shape)
    raise DataError(
        f"{file}: a row of {spec.name} has shape {list(shape)}, the model takes {list(spec.shape)}",
        "use the data that the model was trained for, prepared in the same way",
    )


def class_indices(table: Table, names: Sequence[str], values: Sequence[Any] | None = None) -> npt.NDArray[np.int64]:
    """Class indices int64 [N] from labels as the file writes them.

    Args:
        table: where the labels are.
        names: the K names of the classes.
        values: what the estimator calls its classes (scikit-learn's ``classes_``), where it is known. Otherwise a
        label is
            an index 0…K-1 or one of the names.

    Raises:
        DataError: a label is none of these.
    """
    known: dict[Any, int] = {}
    if table.labels.dtype.kind in "US":
        known = {str(value): i for i, value in enumerate(values)} if values is not None else {}
        known |= {name: i for i, name in enumerate(names)}
    else:
        known = {_plain(value): i for i, value in enumerate(values if values is not None else range(len(names)))}
    found = np.array([known.get(_plain(label), -1) for label in table.labels], dtype=np.int64)
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        hint = "use the names given with --labels, or class indices from 0"
        raise DataError(
            f"{table.file}: row {row} has the label {_plain(table.labels[row])!r}; the model's classes are "
            f"{_listed([str(key) for key in known])}",
            hint,
        )
    return found


def _plain(value: Any) -> Any:
    """A label as a plain value that compares equal however numpy stored it: 3, 3.0 and int8(3) are the same class."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return int(value) if isinstance(value, bool) else value


def parts_of(table: Table, labels: npt.NDArray[np.int64], calibration_share: float) -> tuple[Array, Array]:
    """Row numbers (calibration, validation): as the data say what was held out, else by `split`.

    Raises:
        DataError: nothing is left for one of the two.
    """
    if table.held_out is None:
        return split(labels, calibration_share)
    seen = np.setdiff1d(np.arange(table.rows), table.held_out)
    if not len(seen) or not len(table.held_out):
        raise DataError(f"{table.file}: of its rows all or none are held out", "a part has to be, to measure the model")
    return seen, table.held_out


def split(labels: npt.NDArray[np.int64], calibration_share: float) -> tuple[Array, Array]:
    """Row numbers (calibration, validation), disjoint, the same at every call, each class in the same share.

    Every k-th row of each class goes to calibration, so a file that is sorted by class or by time is split evenly.
    """
    position = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = labels == label
        position[rows] = np.arange(int(rows.sum()))
    # Bresenham's line: row i is taken where the running share passes the next whole number.
    taken = np.floor((position + 1) * calibration_share) > np.floor(position * calibration_share)
    return np.flatnonzero(taken), np.flatnonzero(~taken)
