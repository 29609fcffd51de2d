"""Files of named arrays: ``.npz`` without pickles, ``.safetensors``, and what pyarrow reads."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from model_export.data.table import Array
from model_export.errors import DataError, MissingLibraryError


def read_npz(path: Path) -> dict[str, Array]:
    """NumPy's archive; raises `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            hint = "save plain arrays of numbers; strings as dtype 'U', not 'O'"
            raise DataError(f"{path.name} holds pickled objects, which are never loaded", hint) from error
        raise DataError(f"{path.name} cannot be read as .npz: {error}", "write it with numpy.savez") from error
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"{path.name} cannot be read as .npz: {error}", "write it with numpy.savez") from error


def read_safetensors(path: Path) -> dict[str, Array]:
    """A safetensors file; raises `DataError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(f"{path.name} cannot be read as safetensors: {error}", "write it with save_file()") from error


def read_arrow(path: Path) -> dict[str, Array]:
    """CSV or Parquet; raises `DataError`, and `MissingLibraryError` without pyarrow."""
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
        raise DataError(f"{path.name} cannot be read: {error}", "check that it is whole, and a CSV in UTF-8") from error
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path.name} has two columns {twice[0]!r}", "give each column a name of its own")
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        raise DataError(f"{path.name} has {other!r} between its columns", "write it with commas")
    return {name: _column(path.name, name, table.column(name)) for name in names}


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
        raise DataError(f"{file}: the lists in column {name!r} differ in length", "pad them to one length") from error
    if array.dtype == object:
        if not all(isinstance(value, str) for value in array.ravel()):
            raise DataError(f"{file}: column {name!r} holds neither numbers nor strings", "convert it, or drop it")
        array = array.astype(str)
    return array
