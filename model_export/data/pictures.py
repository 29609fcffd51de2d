"""A folder with a folder of pictures for each class: ``data/cat/1.jpg``, ``data/dog/2.png``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from model_export.data.table import Table
from model_export.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png")
COLUMN = "image"
#: All files are in memory while a package is built.
MAX_BYTES = 8 << 30


def holds_pictures(folder: Path) -> bool:
    """Whether it holds folders with pictures, and no Parquet file."""
    return not any(folder.glob("*.parquet")) and any(
        path.suffix.lower() in SUFFIXES for path in folder.glob("*/*") if path.is_file()
    )


def read_pictures(folder: Path) -> Table:
    """The pictures of all classes, a class after the other, each by the names of its files; the label is the folder's.

    The bytes of the files are read and not decoded: what comes before the model does that.

    Raises:
        DataError: they take too much memory, or a file cannot be read.
    """
    files = [
        path
        for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if (size := sum(path.stat().st_size for path in files)) > MAX_BYTES:
        raise DataError(f"the pictures in {folder} take {size:,} bytes; at most {MAX_BYTES:,}", "give fewer of them")
    pictures = np.empty(len(files), object)
    digests = []
    for place, path in enumerate(files):
        try:
            pictures[place] = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path.parent.name}/{path.name} cannot be read: {error.strerror}", "mend it or take it out"
            ) from error
        digests.append(f"{path.parent.name}/{path.name} {hashlib.sha256(pictures[place]).hexdigest()}\n")
    labels = np.array([path.parent.name for path in files])
    return Table({COLUMN: pictures}, labels, folder.name, hashlib.sha256("".join(digests).encode()).hexdigest())
