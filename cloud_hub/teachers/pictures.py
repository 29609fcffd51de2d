"""Rows as pictures: PNG, written here in a few lines, so that a hub needs no library of pictures."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from cloud_hub.teachers.port import Array
from edgeloop.insights import InsightsError
from edgeloop.insights.forms import InputForm

#: PNG's colour types by number of channels (W3C PNG, 11.2.1).
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def as_picture(row: Array, shape: tuple[int, ...] = ()) -> Array | None:
    """Pixels uint8 [H, W, C] of a row, or None where it is no picture.

    Args:
        row: numbers; whole ones are 0…255, others 0…1 where none is above 1, else 0…255.
        shape: what it is laid out as first, where it travels as a line of numbers; () as it is.
    """
    if shape and int(np.prod(shape)) == row.size:
        row = row.reshape(shape)
    if row.dtype.kind not in "uif" or row.ndim not in (2, 3) or not row.size:
        return None
    try:
        form = InputForm.of(row[None], "image" if shape else None)
    except InsightsError:  # somebody declares a picture that cannot be one
        return None
    if form.kind != "image":
        return None
    pixels = np.moveaxis(row, 0, -1) if form.channel_axis == 1 else row
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if row.dtype.kind == "f":
        pixels = np.nan_to_num(pixels) * (255.0 if float(np.nanmax(row)) <= 1.0 else 1.0)
    return np.asarray(np.rint(np.clip(pixels, 0, 255)), np.uint8)


def png(pixels: Array) -> bytes:
    """A PNG file of pixels uint8 [H, W, C], C being 1, 3 or 4."""
    height, width, channels = pixels.shape
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # a 0 before each line: it is not filtered
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def data_url(pixels: Array) -> str:
    """The picture in an address, as vision models take it."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
