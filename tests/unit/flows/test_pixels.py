"""Pictures and frames as tensors: every layout, scale, crop and colour, against numpy; a camera's dropped frames."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SOURCES, PictureSettings, read_all
from edge_agent.flows.pictures import PictureReader
from edge_agent.flows.pixels import middle, tensor
from edge_agent.flows.ports import Ended
from edge_agent.serving.calls import Described
from edgeloop.package import OutputSpec, TensorSpec

MODEL = Described(
    "eye", "1", ("1",), (TensorSpec("image", "FP32", (-1, 3, -1, -1)),), (OutputSpec("y", "FP32", (-1,), "other"),)
)
COLOURS = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)


def picture(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def read(data: bytes, **settings: Any) -> np.ndarray:
    return np.asarray(PictureReader(None, PictureSettings(**settings))(data, MODEL).inputs["image"])


def test_every_layout_is_the_same_pixels() -> None:
    data = picture(COLOURS)
    expected = COLOURS.astype(np.float32) / 255
    assert np.allclose(read(data)[0], expected.transpose(2, 0, 1))
    assert np.allclose(read(data, layout="NHWC")[0], expected)
    assert np.allclose(read(data, layout="flat"), expected.reshape(1, -1))
    assert np.allclose(read(data, colours="bgr", layout="NHWC")[0], expected[:, :, ::-1])
    grey = read(data, colours="grey", layout="NHW")
    assert grey.shape == (1, 6, 4)
    assert np.allclose(grey[0], expected @ np.array([0.299, 0.587, 0.114]), atol=0.01)  # ITU-R 601, as Pillow has it


def test_scale_mean_and_std_go_by_channel() -> None:
    settings = PictureSettings(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    expected = (COLOURS / 255 - np.array([0.1, 0.2, 0.3])) / np.array([1, 2, 4])
    assert np.allclose(tensor(COLOURS, settings)[0], expected.transpose(2, 0, 1), atol=1e-6)
    found = tensor(COLOURS, PictureSettings(layout="NHWC", mean=(0.5,), std=(0.5,), scale=1 / 255, datatype="FP16"))
    assert found.dtype == np.float16 and np.allclose(found[0], COLOURS / 127.5 - 1, atol=2e-3)
    raw = tensor(COLOURS, PictureSettings(layout="NHWC", datatype="UINT8"))
    assert raw.dtype == np.uint8 and np.array_equal(raw[0], COLOURS)


def test_the_middle_is_what_is_left_of_another_aspect_ratio() -> None:
    square = PictureSettings(width=10, height=10, resize="crop")
    assert middle(200, 100, square) == (50, 0, 150, 100)
    assert middle(100, 200, square) == (0, 50, 100, 150)
    assert middle(100, 200, PictureSettings(width=10, height=10)) == (0, 0, 100, 200)
    assert middle(1, 5000, PictureSettings(width=100, height=1, resize="crop")) == (0, 2499, 1, 2500)
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    found = read(picture(wide), width=4, height=4, resize="crop", colours="grey", layout="flat")
    assert np.allclose(found, 1.0)


def test_a_picture_is_turned_as_the_camera_was_held() -> None:
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")
    exif = image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    left = np.zeros((16, 32), np.uint8)
    left[:, :16] = 255
    found = read(picture(left, "JPEG", exif=exif), colours="grey", layout="NHW")[0]
    assert found.shape == (32, 16) and found[:14].mean() > 0.9 and found[18:].mean() < 0.1


def test_a_camera_that_is_faster_than_the_model_drops_frames_and_counts_each(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="cameras need OpenCV; pip install 'edgeloop[camera]'")
    from edge_agent.flows.sources.camera import CameraSource

    path, frames = tmp_path / "v.avi", 40
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 100, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), number * 6, np.uint8))
    writer.release()
    table = {"kind": "camera", "name": "c", "sinks": ["x"], "device": str(path), "max_fps": 20}
    source = CameraSource(read_all(SOURCES, [table])[0])  # type: ignore[arg-type]
    source.open()
    taken: list[int] = []
    with pytest.raises(Ended):
        while True:
            if (item := source.next(0.5)) is not None:
                taken.append(item.about["frame"])
                time.sleep(0.01)
    source.close()
    counts = source.counts()
    assert counts["frames"] == frames and len(taken) + counts["dropped"] == frames
    assert taken == sorted(taken) and 1 <= len(taken) < frames


def test_a_video_may_begin_again(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="cameras need OpenCV; pip install 'edgeloop[camera]'")
    from edge_agent.flows.sources.camera import CameraSource

    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 100, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    table = {"kind": "camera", "name": "c", "sinks": ["x"], "device": str(path), "repeat": "loop"}
    source = CameraSource(read_all(SOURCES, [table])[0])  # type: ignore[arg-type]
    source.open()
    for _ in range(8):
        item = None
        for _ in range(100):
            if (item := source.next(0.2)) is not None:
                break
        assert item is not None
    source.close()
    assert source.counts()["frames"] >= 8
