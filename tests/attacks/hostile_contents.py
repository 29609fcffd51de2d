"""Pieces of which the attacks on sources are made, and what says that one was refused."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import PictureSettings
from edge_agent.flows.contents import Reader
from edge_agent.flows.ports import Rejected
from edge_agent.serving.calls import Described
from edgeloop.package import OutputSpec, TensorSpec

MODEL = Described(
    "tiny", "1", ("1",), (TensorSpec("x", "FP32", (-1, 64)),), (OutputSpec("label", "INT64", (-1,), "label"),)
)
GREY = PictureSettings(width=8, height=8, colours="grey", layout="flat", max_pixels=1_000_000)
NEVER = threading.Event()


def png(width: int, height: int, data: bytes = b"", bits: int = 8, colour: int = 0) -> bytes:
    """A PNG file, byte by byte: its header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def encoded(form: str, mode: str = "L", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size, 128 if mode in "L" else None).save(file, form, **options)
    return file.getvalue()


def refused(reader: Reader, data: bytes, *words: str) -> None:
    with pytest.raises(Rejected) as caught:
        reader(data, MODEL)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()
