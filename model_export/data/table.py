"""Labelled examples, and what a model takes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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


def listed(names: Mapping[str, Array] | Sequence[str], most: int = 12) -> str:
    """Names for a message, the first few of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
