"""From the rows of a data file to what callers of the package give, and from those to what the model itself takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from edgeloop.pictures import INSTALL, Fit, NoPicture, decoded, pillow_is_here
from model_export.data import InputSpec, Table
from model_export.errors import DataError, MissingLibraryError
from model_export.graphs.graph import Array
from model_export.graphs.probe import Probe
from model_export.processing import image, text
from model_export.processing.columns import OPSET, column_pieces
from model_export.processing.pieces import Pieces
from model_export.processing.steps import ColumnSteps, ImageSteps, Processing, TextSteps

#: Pixels of a picture in the data, at most.
MAX_PIXELS = 178_000_000


def applied(processing: Processing, table: Table) -> tuple[dict[str, Array], Table]:
    """What callers of the package would give for each row, and the table that the model itself takes.

    Raises:
        DataError: the table lacks a column, or a picture cannot be read.
        MissingLibraryError: Pillow or onnxruntime-extensions is not installed.
    """
    if not processing.before:
        return {}, table
    raw, pieces, opset = _prepared(processing, table)
    found = Probe(pieces.model(opset)).run(raw)
    return raw, replace(table, columns=found)


def _prepared(processing: Processing, table: Table) -> tuple[dict[str, Array], Pieces, int]:
    if processing.image is not None:
        plain = processing.image.scale == 1 and not processing.image.mean and not processing.image.std
        kind = TensorProto.UINT8 if plain else TensorProto.FLOAT
        raw = {image.INPUT: _pictures(table, processing.image)}
        return raw, image.image_pieces(processing.image, "processed", kind), image.OPSET
    if processing.text is not None:
        steps = processing.text
        kinds = dict.fromkeys((steps.ids, steps.mask, steps.types), TensorProto.INT64)
        return {text.INPUT: _texts(table, steps)}, text.text_pieces(steps, kinds, trim=False), text.OPSET
    raw = {column.name: _column(table, column) for column in processing.columns}
    return raw, column_pieces(processing.columns, "processed", TensorProto.FLOAT), OPSET


def raw_specs(processing: Processing) -> tuple[InputSpec, ...]:
    """The package's inputs."""
    if processing.image is not None:
        return (InputSpec(image.INPUT, np.dtype(np.uint8), (-1, -1, 3)),)
    if processing.text is not None:
        return (InputSpec(text.INPUT, np.dtype(object), ()),)
    kinds = {True: np.dtype(object), False: np.dtype(np.float32)}
    return tuple(InputSpec(column.name, kinds[bool(column.categories)], (1,)) for column in processing.columns)


def holds_pictures(table: Table) -> bool:
    """Whether the data are files of pictures, or pixels under the name that they have here."""
    column = table.columns.get(image.INPUT)
    return column is not None and column.dtype in (object, np.uint8)


def holds_texts(table: Table) -> bool:
    """Whether there is a column of texts."""
    return any(_is_text(array) for array in table.columns.values())


def _pictures(table: Table, steps: ImageSteps) -> Array:
    """uint8 [N, H, W, 3]: pixels as they are, or files that are decoded and made small as the agent does it."""
    column = table.columns.get(image.INPUT)
    if column is None and len(table.columns) == 1:
        column = next(iter(table.columns.values()))
    if column is not None and column.dtype == np.uint8 and column.ndim == 4 and column.shape[3] == 3:
        return column
    if column is None or column.dtype != object or not all(isinstance(value, bytes) for value in column):
        raise DataError(
            f"{table.file} holds no pictures",
            "give a folder with a folder of PNG or JPEG files for each class, or pixels as uint8 [N, H, W, 3]",
        )
    if not pillow_is_here():
        raise MissingLibraryError("pictures need Pillow", f"install it: {INSTALL}")
    height, width = steps.covered
    fit = Fit(width, height, steps.fit == "crop", steps.resample)
    pixels = np.empty((len(column), height, width, 3), np.uint8)
    for row, data in enumerate(column):
        try:
            pixels[row] = decoded(data, max_pixels=MAX_PIXELS, fit=fit)
        except NoPicture as error:
            raise DataError(f"{table.file}: picture {row} cannot be used: {error}", "mend it or take it out") from error
    return pixels


def _texts(table: Table, steps: TextSteps) -> Array:
    columns: Mapping[str, Array] = {name: array for name, array in table.columns.items() if _is_text(array)}
    name = steps.column or (text.INPUT if text.INPUT in columns or len(columns) != 1 else next(iter(columns)))
    if name not in columns:
        raise DataError(
            f"{table.file} has no column of texts {name!r}; its columns of texts are {', '.join(columns) or 'none'}",
            "name the column with [text] column",
        )
    return _objects(columns[name])


def _column(table: Table, column: ColumnSteps) -> Array:
    values = table.columns.get(column.name)
    if values is None or values.ndim != 1:
        raise DataError(f"{table.file} has no column {column.name!r} of single values", "the processing file names it")
    if column.categories:
        return _objects(values.astype(str))[:, np.newaxis]
    if values.dtype.kind not in "fiub" or not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"{table.file}: {column.name} holds what is no finite number", "drop or mend those rows")
    return values.astype(np.float32)[:, np.newaxis]


def _is_text(array: Array) -> bool:
    return array.ndim == 1 and (array.dtype.kind == "U" or (array.dtype == object and isinstance(array[0], str)))


def _objects(array: Array) -> Array:
    found = np.empty(array.shape, object)
    found[:] = array.tolist()
    return found
