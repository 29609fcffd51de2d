"""Pictures that a stranger sends: bombs, lies and what is none are refused, and no pixel is decoded before."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.pictures import PictureReader
from edge_agent.flows.ports import Missing, Rejected
from edge_agent.flows.sources.camera import CameraSource
from tests.attacks.hostile_contents import GREY, MODEL, encoded, png, refused


@pytest.fixture
def pictures() -> PictureReader:
    pytest.importorskip("PIL", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")
    return PictureReader(None, GREY)


def test_a_bomb_is_refused_by_its_header_before_a_pixel_is_decoded(pictures: PictureReader) -> None:
    bomb = png(50_000, 50_000, b"\0" * 10_000)
    tracemalloc.start()
    refused(pictures, bomb, "50000 x 50000 pixels", "max_pixels")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    refused(pictures, png(0x7FFFFFFF, 0x7FFFFFFF))


def test_more_data_than_the_header_says_is_not_unpacked(pictures: PictureReader) -> None:
    stuffed = png(8, 8, b"\0" * (200 << 20))
    tracemalloc.start()
    with contextlib.suppress(Rejected):
        pictures(stuffed, MODEL)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_text_that_unpacks_to_a_gigabyte_is_refused(pictures: PictureReader) -> None:
    whole = encoded("PNG")
    body = b"Comment\0\0" + zlib.compress(b"x" * (256 << 20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    tracemalloc.start()
    with contextlib.suppress(Rejected):
        pictures(whole[:33] + chunk + whole[33:], MODEL)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_picture_is_none(pictures: PictureReader, form: str) -> None:
    whole = encoded(form, size=(200, 200))
    for share in (0.1, 0.5, 0.9):
        refused(pictures, whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"this is no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<svg></svg>", b"GIF89a" * 9],
)
def test_what_is_no_picture_is_refused(pictures: PictureReader, data: bytes) -> None:
    refused(pictures, data)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO", "WEBP"])
def test_other_formats_are_refused_whatever_their_name_says(pictures: PictureReader, form: str) -> None:
    try:
        data = encoded(form, size=(16, 16))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {form}")
    refused(pictures, data, "none of PNG, JPEG")


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")] + [("JPEG", m) for m in ("L", "RGB", "CMYK")],
)
def test_every_mode_of_a_picture_gives_pixels(pictures: PictureReader, form: str, mode: str) -> None:
    found = pictures(encoded(form, mode, (20, 10)), MODEL).inputs["x"]
    assert found.shape == (1, 64) and found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1


def test_sixteen_bits_keep_their_brightness(pictures: PictureReader) -> None:
    raw = b"".join(b"\0" + struct.pack(">8H", *[0x8000] * 8) for _ in range(8))
    found = pictures(png(8, 8, raw, bits=16), MODEL).inputs["x"]
    assert np.allclose(found, 0.5, atol=0.01)


def test_changed_bytes_are_answered_or_refused_and_nothing_else(pictures: PictureReader) -> None:
    chance = random.Random(5)
    for form in ("PNG", "JPEG"):
        whole = bytearray(encoded(form, "RGB", (40, 30)))
        for _ in range(400):
            changed = bytearray(whole)
            for _ in range(chance.randrange(1, 8)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            try:
                assert pictures(bytes(changed), MODEL).inputs["x"].shape == (1, 64)
            except Rejected:
                continue


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".", maxsplit=1)[0] in ("PIL", "cv2", "pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Missing, match=r"edgeloop\[pictures\]"):
        PictureReader(None, GREY)
    (camera,) = read_all(SOURCES, [{"kind": "camera", "name": "c", "sinks": ["x"], "device": "0"}])
    with pytest.raises(Missing, match=r"edgeloop\[camera\]"):
        CameraSource(camera).open()  # type: ignore[arg-type]
