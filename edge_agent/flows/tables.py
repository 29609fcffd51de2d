"""Tables, row by row: CSV by the standard library, Parquet by pyarrow, which is imported when there is such a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from edge_agent.flows.ports import Missing, Trouble

Row = dict[str, Any]
#: Longest line of a CSV file, characters: a file without line ends must not be read whole.
MAX_LINE = 1 << 20
#: Rows of a Parquet file that are in memory at once.
BATCH_ROWS = 256


def rows(path: Path, skip: int = 0) -> Iterator[Row]:
    """Rows of a table by column name, after the first ``skip``.

    Raises:
        Trouble: the file cannot be read, or is no table.
        Missing: it is Parquet, and pyarrow is not installed.
    """
    found = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    return islice(found, skip, None)


def _csv(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(_lines(file), strict=True)
            names = next(lines, None)
            if not names or len(set(names)) != len(names):
                raise Trouble(f"{path}: the first line has to name the columns, each once")
            for cells in lines:
                if cells:
                    # A row that is too short has no value for its last columns; one that is too long has too many.
                    yield dict(zip(names, cells, strict=False)) if len(cells) <= len(names) else {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"{path} cannot be read as CSV: {error}") from error


def _lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise csv.Error(f"a line is longer than {MAX_LINE} characters")
        yield line


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise Missing("Parquet needs pyarrow; pip install 'edgeloop[parquet]', or write the table as CSV") from error
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise Trouble(f"{path} cannot be read as Parquet: {error}") from error
