"""Labelled data: reading files and folders, the inputs of a model, the indices of classes, the parts of the data.

A file becomes a `Table`: named arrays with one row an example, and the labels as they are written in the file. How its
arrays become the inputs of a model is `bind`; what is written down as a label becomes a class in `class_indices`.
"""

from __future__ import annotations

from model_export.data.binding import bind
from model_export.data.labels import class_indices
from model_export.data.reading import DATASET_ONLY, HELD_OUT, LABEL_NAMES, SUFFIXES, WEIGHT, read_table
from model_export.data.splitting import CALIBRATION_SHARE, VALIDATION_ROWS, parts_of, representative, split, spread
from model_export.data.table import Array, InputSpec, Table, sha256_of

__all__ = [
    "CALIBRATION_SHARE",
    "DATASET_ONLY",
    "HELD_OUT",
    "LABEL_NAMES",
    "SUFFIXES",
    "VALIDATION_ROWS",
    "WEIGHT",
    "Array",
    "InputSpec",
    "Table",
    "bind",
    "class_indices",
    "parts_of",
    "read_table",
    "representative",
    "sha256_of",
    "split",
    "spread",
]
