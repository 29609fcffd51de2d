"""What a stranger can lay into a folder, publish on a topic or answer to a webhook is set aside with a reason."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import stat
import struct
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SINKS, SOURCES, PictureSettings, TensorSettings, read_all
from edge_agent.flows.assembly import make_sink
from edge_agent.flows.brokers import Device
from edge_agent.flows.contents import JsonReader, NpyReader, NpzReader, RawReader, Reader, read_oip
from edge_agent.flows.flow import Flow, FlowSettings
from edge_agent.flows.lines import LinesFile
from edge_agent.flows.pictures import PictureReader
from edge_agent.flows.ports import Gone, Missing, Rejected, Result, Trouble
from edge_agent.flows.sources.camera import CameraSource
from edge_agent.flows.sources.folder import AT_ONCE, FolderSource
from edge_agent.flows.sources.replay import ReplaySource
from edge_agent.flows.spool import Spool
from edge_agent.flows.tables import MAX_LINE
from edge_agent.serving.calls import Described
from edge_agent.serving.dataplane import DataPlane
from edgeloop.package import OutputSpec, TensorSpec
from tests.conformance.flows.sinks import WebhookWorld, result
from tests.conformance.flows.sources import MqttWorld, rows, take
from tests.doubles.door import loaded
from tests.doubles.packages import make_package
from tests.integration.brokers import broker_or_skip
from tests.integration.hub_process import wait_for

MODEL = Described(
    "tiny", "1", ("1",), (TensorSpec("x", "FP32", (-1, 64)),), (OutputSpec("label", "INT64", (-1,), "label"),)
)
GREY = PictureSettings(width=8, height=8, colours="grey", layout="flat", max_pixels=1_000_000)
NEVER = threading.Event()


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────


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


@pytest.fixture
def pictures() -> PictureReader:
    pytest.importorskip("PIL", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")
    return PictureReader(None, GREY)


def refused(reader: Reader, data: bytes, *words: str) -> None:
    with pytest.raises(Rejected) as caught:
        reader(data, MODEL)
    assert all(word in str(caught.value) for word in words), str(caught.value)


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


# ── arrays, JSON, raw ────────────────────────────────────────────────────────────────────────────


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x07\x00" + b"\0" * 50,
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999999999)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 64)}", b"\0" * 256),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 99}"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 40}}}", b"\0" * 4),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 64)}", b"\0" * 255),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 64)}", b"\0" * 512),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (64,)}", b"\0" * 256),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (64,)}"),
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999999,)}"),
        npy("__import__('os').abort()"),
        npy("(" * 1000),
        npy("{" + "'a': 1, " * 5000 + "}"),
        saved(np.array([{"run": "me"}], object), allow_pickle=True),
    ],
    ids=range(17),
)
def test_arrays_that_lie_or_would_run_code_are_refused(data: bytes) -> None:
    refused(NpyReader(None, 1 << 20), data)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", data)
    refused(NpzReader(1 << 20), file.getvalue())


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = zipped(("x.npy", b"\0" * (300 << 20)))
    tracemalloc.start()
    refused(NpzReader(1 << 20), bomb, "larger than max_bytes")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_archives_that_are_none_or_hold_what_no_model_takes_are_refused() -> None:
    good = saved(np.zeros((1, 64), np.float32))
    whole = zipped(("x.npy", good))
    reader = NpzReader(1 << 20)
    assert reader(whole, MODEL).inputs["x"].shape == (1, 64)
    refused(reader, b"")
    refused(reader, b"PK\x03\x04" + b"\0" * 99)
    refused(reader, whole[:-30])
    refused(reader, zipped(), "0 arrays")
    refused(reader, zipped(*((f"{n}.npy", good) for n in range(65))), "65 arrays")
    refused(reader, zipped(("../x.npy", good)), "no input ../x")
    refused(reader, zipped(("x.npy", good), method=zipfile.ZIP_LZMA), "packed in a way")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
    refused(reader, bytes(encrypted))
    chance = random.Random(3)
    for _ in range(300):
        changed = bytearray(whole)
        changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            assert reader(bytes(changed), MODEL).inputs["x"].shape == (1, 64)
        except Rejected:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[[[[[" * 20 + b"]]]]]" * 20,
        b"null",
        b'"text"',
        b"{}",
        b"[1, 2",
        b"[" + b"1," * 62 + b"1]",
        b"[" + b"1," * 64 + b"1]",
        b"[" + b'"1",' * 63 + b"1]",
        b"[" + b"null," * 63 + b"1]",
        b"[" + b"1e999," * 63 + b'"x"]',
        b"[" + b"9" * 5000 + b"]",
        b"[[1], [1, 2]]",
        b"[true]",
    ],
    ids=range(16),
)
def test_json_that_is_no_row_is_refused(data: bytes) -> None:
    refused(JsonReader(None, None), data)
    refused(JsonReader(None, {"x": ("a.b", "c")}), data)
    refused(read_oip, data)


def test_a_place_in_an_object_cannot_lead_elsewhere() -> None:
    reader = JsonReader(None, {"x": ("a.b",)})
    assert reader(json.dumps({"a": {"b": [0.5] * 64}}).encode(), MODEL).inputs["x"].shape == (1, 64)
    for found in ({"a": [1]}, {"a": {"c": 1}}, {"a": {"b": {"d": 1}}}, {"a.b": [0.5] * 64}, [1], {"a": {"b": None}}):
        refused(reader, json.dumps(found).encode())


def test_a_request_in_a_message_can_name_no_shared_memory_and_no_bytes_beyond_itself() -> None:
    for parameters in (
        {"shared_memory_region": "frame", "shared_memory_byte_size": 256},
        {"binary_data_size": 256},
    ):
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "parameters": parameters}
        refused(read_oip, json.dumps({"inputs": [tensor]}).encode())


def test_an_id_that_is_no_text_is_refused() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
    for identity in ('"\\ud800"', "5", "null", f'"{"x" * 300}"'):
        refused(read_oip, f'{{"id": {identity}, "inputs": [{json.dumps(tensor)}]}}'.encode())


@pytest.mark.parametrize("size", [0, 1, 255, 257, 1 << 16])
def test_raw_bytes_of_another_size_are_refused(size: int) -> None:
    refused(RawReader(None, TensorSettings(datatype="FP32", shape=(1, 64))), b"\0" * size, "256 bytes")


def test_raw_rows_are_counted_by_their_bytes() -> None:
    reader = RawReader(None, TensorSettings(datatype="UINT8", shape=(-1, 64)))
    assert reader(b"\7" * 192, MODEL).inputs["x"].shape == (3, 64)
    for size in (0, 63, 65):
        refused(reader, b"\0" * size)


# ── the folder ───────────────────────────────────────────────────────────────────────────────────


def folder_source(folder: Path, **more: Any) -> FolderSource:
    table = {"kind": "folder", "name": "door", "sinks": ["x"], "path": str(folder), "settle_s": 0, "poll_s": 0.02}
    (settings,) = read_all(SOURCES, [{**table, "patterns": ["*.npy", "*.raw"], **more}])
    source = FolderSource(settings, folder.parent / "state")  # type: ignore[arg-type]
    source.open()
    return source


def good(path: Path) -> Path:
    np.save(path, rows(1)[0])
    return path


def test_links_devices_and_folders_are_left_alone(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    secret = good(tmp_path / "secret.npy")
    (inbox / "link.npy").symlink_to(secret)
    (inbox / "nowhere.npy").symlink_to("/nowhere")
    (inbox / "folder.npy").mkdir()
    os.mkfifo(inbox / "pipe.npy")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(inbox / "s.npy"))
    source = folder_source(inbox)
    assert source.next(0.2) is None
    assert source.counts()["ignored"] == 5 and secret.exists()
    source.close()
    listener.close()


def test_a_file_that_becomes_a_link_between_look_and_read_is_not_followed(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    secret = good(tmp_path / "secret.npy")
    file = good(inbox / "a.npy")
    source = folder_source(inbox)
    item = take(source)
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(Rejected):
        source.read(item, MODEL)
    source.reject(item, "a link")
    assert secret.exists() and (inbox / "rejected" / "a.npy").is_symlink()
    source.close()


def test_a_file_that_is_still_being_written_is_not_taken(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    clock = [0.0]
    (settings,) = read_all(
        SOURCES,
        [{"kind": "folder", "name": "d", "sinks": ["x"], "path": str(inbox), "settle_s": 5, "patterns": ["*.npy"]}],
    )
    source = FolderSource(settings, tmp_path / "state", lambda: clock[0])  # type: ignore[arg-type]
    source.open()
    whole = good(tmp_path / "whole.npy").read_bytes()
    file = inbox / "a.npy"
    for end in range(50, len(whole), 100):
        file.write_bytes(whole[:end])
        clock[0] += 2
        assert source.next(0) is None, "it has grown since the last look"
    file.write_bytes(whole)
    clock[0] += 1
    assert source.next(0) is None, "it has only just stopped growing"
    clock[0] += 5
    item = source.next(0)
    assert item is not None
    file.write_bytes(whole + b"more")
    with pytest.raises(Gone):
        source.read(item, MODEL)
    source.close()


def test_names_that_are_no_text_or_very_long_are_taken_as_any_other(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    names = [b"\xff\xfe.npy", b"line\nbreak.npy", b"a" * 250 + b".npy", b"'; DROP TABLE mark; --.npy", b"A.NPY"]
    for name in names:
        good(tmp_path / "x.npy").rename(inbox / os.fsdecode(name))
    bad = inbox / ("b" * 250 + ".npy")
    bad.write_bytes(b"bad")
    source = folder_source(inbox)
    for _ in range(6):
        item = take(source)
        json.dumps(item.about)
        try:
            source.read(item, MODEL)
        except Rejected as error:
            source.reject(item, str(error))
        else:
            source.done(item)
    assert source.next(0.1) is None
    assert sorted(os.fsencode(path.name) for path in (inbox / "done").iterdir()) == sorted(names)
    assert (inbox / "rejected" / bad.name).exists()
    source.close()


def test_a_file_that_cannot_leave_is_not_taken_again_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    good(inbox / "a.npy")
    source = folder_source(inbox, after="delete")
    item = take(source)

    def forbidden(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        source.done(item)
        assert source.next(0.2) is None and source.counts()["stuck"] == 1
        good(inbox / "b.npy")
        assert take(source).key == "b.npy"
        source.close()
        source.open()
        assert take(source).key == "b.npy", "after a restart too"
        source.close()
    source.open()
    assert not (inbox / "a.npy").exists(), "as soon as it can leave, it does"
    source.close()


def test_a_folder_of_thousands_is_looked_at_in_parts(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(2 * AT_ONCE + 10):
        (inbox / f"{number:05d}.raw").write_bytes(b"\0")
    source = folder_source(inbox, after="delete")
    seen = set()
    while (item := source.next(0.2)) is not None:
        assert len(source._ready) < AT_ONCE
        seen.add(item.key)
        source.done(item)
    assert len(seen) == 2 * AT_ONCE + 10 and not list(inbox.glob("*.raw"))
    source.close()


def test_rejected_files_are_bounded(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    source = folder_source(inbox, keep_files=10)
    for number in range(40):
        (inbox / "same.npy").write_bytes(b"x" * (number + 1))
        item = take(source)
        source.reject(item, "no array")
    left = list((inbox / "rejected").iterdir())
    assert 9 <= len([path for path in left if path.suffix == ".npy"]) <= 11
    assert len(left) == 2 * len([path for path in left if path.suffix == ".npy"]), "each with its reason"
    source.close()


def test_a_file_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    with (inbox / "a.npy").open("wb") as file:
        file.truncate(1 << 40)
    source = folder_source(inbox)
    with pytest.raises(Rejected, match="max_bytes"):
        source.read(take(source), MODEL)
    source.close()


def test_damaged_marks_are_a_trouble_that_says_what_to_do(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "marks.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Trouble, match="delete it"):
        folder_source(inbox)


def test_a_folder_of_horrors_stops_nobody(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pictures need Pillow; pip install 'edgeloop[pictures]'")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    from PIL import Image

    for number, row in enumerate(rows(5)):
        Image.fromarray(np.rint(row.reshape(8, 8) * 255).astype(np.uint8)).save(inbox / f"good-{number}.png")
    horrors = {
        "bomb.png": png(60_000, 60_000, b"\0" * 1000),
        "cut.png": encoded("PNG", size=(99, 99))[:60],
        "gif.png": encoded("GIF"),
        "text.jpg": b"hello",
        "empty.png": b"",
        "pickle.npy": saved(np.array([{"a": 1}], object), allow_pickle=True),
        "bomb.npz": zipped(("x.npy", b"\0" * (100 << 20))),
        "shape.npy": saved(np.zeros((3, 3), np.float32)),
        "words.npy": saved(np.array(["a"] * 64)),
        "nan.npy": saved(np.full((1, 64), np.nan, np.float32)),
        "raw.raw": b"\0" * 99,
    }
    for name, data in horrors.items():
        (inbox / name).write_bytes(data)
    (inbox / "link.png").symlink_to("/etc/passwd")
    picture = {"width": 8, "height": 8, "colours": "grey", "layout": "flat", "max_pixels": 1_000_000}
    source = folder_source(inbox, patterns=["*"], picture=picture, max_bytes=1 << 20)
    source.close()
    got: list[Result] = []

    class Sink:
        name, trouble = "x", ""

        def put(self, result: Result, stopping: threading.Event) -> None:
            got.append(result)

    plane = DataPlane(None, id_prefix="life")
    plane.switch(loaded(make_package(tmp_path / "package")))
    flow = Flow(FlowSettings("door"), source, [Sink()], plane)  # type: ignore[list-item]
    flow.start()
    wait_for(lambda: len(got) == 5 and flow.status()["counts"]["rejected"] == len(horrors), 60, str(flow.status()))
    flow.ask_to_stop()
    flow.join(10)
    assert {json.loads(r.document)["item"]["file"] for r in got} == {f"good-{n}.png" for n in range(5)}
    rejected = inbox / "rejected"
    assert {p.name for p in rejected.iterdir()} == {n + e for n in horrors for e in ("", ".reason.txt")}
    assert all(len(p.read_text()) > 10 for p in rejected.glob("*.reason.txt"))
    assert flow.status()["counts"]["reopened"] == 0
    plane.close()


# ── a topic ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def topic(tmp_path: Path) -> Iterator[MqttWorld]:
    world = MqttWorld(tmp_path, broker_or_skip("mosquitto", tmp_path))
    yield world
    world.close()
    world.broker.kill()


def test_a_flood_at_qos_0_is_dropped_counted_and_takes_no_memory(topic: MqttWorld) -> None:
    source = topic.source(ahead=4)
    source.open()
    for _ in range(500):
        topic.link.publish(topic.topic, b"[1]", qos=0)
    assert topic.link.confirm(topic.topic, b"[2]")
    wait_for(lambda: source.counts()["dropped"] == 496, 30, str(source.counts()))
    payloads = [take(source).body.payload for _ in range(5)]
    assert payloads == [b"[1]"] * 4 + [b"[2]"]


def test_a_flood_at_qos_1_waits_at_the_broker_and_none_is_lost(topic: MqttWorld) -> None:
    source = topic.source(ahead=2)
    source.open()
    for number in range(300):
        wait_for(lambda number=number: topic.link.publish(topic.topic, b"%d" % number))  # type: ignore[misc]
    seen = []
    while len(set(seen)) < 300:
        item = take(source)
        seen.append(int(item.body.payload))
        source.done(item)
        assert len(source._waiting) <= 2 + 64  # type: ignore[attr-defined]
    assert sorted(set(seen)) == list(range(300)) and source.counts()["dropped"] == 0


def test_a_flood_that_a_broker_cannot_be_asked_to_hold_back_is_asked_for_again(
    topic: MqttWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_agent.flows.sources import mqtt

    monkeypatch.setattr(mqtt, "_MARGIN", 0)
    source = topic.source(ahead=3)
    # What MQTT 3.1.1 lets a broker do: send more ahead than is wanted.
    real = source._make_link  # type: ignore[attr-defined]
    source._make_link = lambda **o: real(**{**o, "receive_maximum": 0, "version": 4})  # type: ignore[attr-defined]
    source.open()
    for number in range(60):
        assert topic.link.confirm(topic.topic, b"%d" % number)
    seen = set()
    while len(seen) < 60:
        item = take(source)
        seen.add(int(item.body.payload))
        source.done(item)
    assert source.counts()["postponed"] > 0 and source.counts()["dropped"] == 0


def test_a_message_that_is_too_large_is_rejected_or_never_comes(topic: MqttWorld) -> None:
    source = topic.source(max_bytes=2000)
    source.open()
    assert topic.link.confirm(topic.topic, b"x" * 3000)
    assert topic.link.confirm(topic.topic, b"x" * 500_000), "the broker keeps it to itself"
    assert topic.link.confirm(topic.topic, b"[3]")
    item = take(source)
    with pytest.raises(Rejected, match="3000 bytes"):
        source.read(item, MODEL)
    source.reject(item, "too large")
    assert take(source).body.payload == b"[3]"
    (line,) = (topic.folder / "state" / "world" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["bytes"] == 3000 and len(line) < 6000


def test_a_retained_message_is_not_answered_at_every_connect(topic: MqttWorld) -> None:
    assert topic.link.confirm(topic.topic, b"[1]", retain=True)
    source = topic.source()
    source.open()
    assert topic.link.confirm(topic.topic, b"[2]")
    assert take(source).body.payload == b"[2]" and source.counts()["ignored"] == 1


def test_what_is_rejected_is_bounded_on_the_disk(topic: MqttWorld) -> None:
    source = topic.source()
    source.open()
    for _ in range(3):
        assert topic.link.confirm(topic.topic, b"x" * 100_000)
    for _ in range(3):
        item = take(source)
        for _ in range(200):
            source.reject(item, "no")
    state = topic.folder / "state" / "world"
    assert sum(path.stat().st_size for path in state.iterdir()) <= 2 << 20


# ── tables and videos ────────────────────────────────────────────────────────────────────────────


def replay(path: Path, **more: Any) -> ReplaySource:
    (settings,) = read_all(
        SOURCES, [{"kind": "replay", "name": "r", "sinks": ["x"], "path": str(path), "mark_s": 0, **more}]
    )
    source = ReplaySource(settings, path.parent / "state")  # type: ignore[arg-type]
    source.open()
    return source


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a,a\n1,2\n",
        b"a\n" + b"1" * (MAX_LINE + 10),
        b"a" * (MAX_LINE + 10),
        b"a\n\xff\xfe\n",
        b'a\n"1\n2\n',
        b"a\n",
    ],
    ids=range(8),
)
def test_tables_that_are_none_are_a_trouble_and_no_end(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    source = replay(path)
    with pytest.raises(Trouble):
        while True:
            source.next(0.01)


def test_rows_that_are_none_are_rejected_and_the_next_one_comes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    names = ",".join(f"c{i}" for i in range(64))
    fine = ",".join("0.5" for _ in range(64))
    bad = ["1,2,3", fine + ",7", fine.replace("0.5", "x", 1), fine.replace("0.5", "", 1), '"a\nb"' + fine[3:]]
    path.write_text("\n".join([names, *bad, fine]) + "\n")
    source = replay(path)
    for _ in bad:
        item = take(source)
        with pytest.raises(Rejected):
            source.read(item, MODEL)
        source.reject(item, "no row")
    assert source.read(take(source), MODEL).inputs["x"].shape == (1, 64)
    source.close()


def test_a_damaged_mark_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n2\n")
    (tmp_path / "state").mkdir()
    for mark in (b"", b"{", b"[]", b'{"table": 5}', b'{"table": [8, 1], "round": "x"}', b"null"):
        (tmp_path / "state" / "mark.json").write_bytes(mark)
        source = replay(path)
        assert take(source).about == {"row": 1}
        source.close()


def test_parquet_that_is_none_is_a_trouble(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow; pip install 'edgeloop[parquet]'")
    path = tmp_path / "t.parquet"
    for data in (b"", b"PAR1" + b"\0" * 100 + b"PAR1", b"a,b\n1,2\n"):
        path.write_bytes(data)
        source = replay(path)
        with pytest.raises(Trouble, match="Parquet"):
            source.next(0.01)


@pytest.mark.parametrize("data", [b"", b"this is no video" * 100, b"RIFF\xff\xff\xff\x7fAVI LIST" + b"\0" * 500])
def test_what_is_no_video_is_a_trouble(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("cv2", reason="cameras need OpenCV; pip install 'edgeloop[camera]'")
    path = tmp_path / "v.avi"
    path.write_bytes(data)
    (settings,) = read_all(SOURCES, [{"kind": "camera", "name": "c", "sinks": ["x"], "device": str(path)}])
    source = CameraSource(settings)  # type: ignore[arg-type]
    with pytest.raises(Trouble):
        source.open()
        take(source)
    source.close()


def test_a_camera_that_is_not_there_is_a_trouble(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="cameras need OpenCV; pip install 'edgeloop[camera]'")
    for device in ("93", "/nowhere.mp4", str(tmp_path)):
        (settings,) = read_all(SOURCES, [{"kind": "camera", "name": "c", "sinks": ["x"], "device": device}])
        with pytest.raises(Trouble, match="cannot be opened"):
            CameraSource(settings).open()  # type: ignore[arg-type]


# ── the other side of sinks ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[WebhookWorld]:
    world = WebhookWorld(tmp_path)
    yield world
    world.close()


@pytest.mark.parametrize("status", [301, 302, 401, 404, 408, 429, 500, 503])
def test_an_answer_that_somebody_may_mend_loses_nothing(hook: WebhookWorld, status: int) -> None:
    sink = hook.sink()
    hook.answer = lambda headers, body: status
    sink.put(result(0), NEVER)
    wait_for(lambda: str(status) in sink.trouble, 20, sink.trouble)
    assert hook.got() == [] and sink.counts()["waiting"] == 1
    hook.answer = lambda headers, body: 204
    wait_for(lambda: hook.got() == ["p-0"], 20, sink.trouble)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_document_that_is_never_taken_blocks_no_other(hook: WebhookWorld, status: int) -> None:
    sink = hook.sink()
    hook.answer = lambda headers, body: status if b"p-0" in body else 204
    for number in range(3):
        sink.put(result(number), NEVER)
    wait_for(lambda: hook.got() == ["p-1", "p-2"], 20, sink.trouble)
    assert sink.counts()["refused"] == 1
    assert str(status) in (hook.folder / "state" / "world" / "rejected.jsonl").read_text()


@pytest.mark.parametrize("identity", ["a\r\nX-Evil: 1", "ü" * 300, "", "x" * 10_000])
def test_an_id_from_outside_cannot_reach_into_the_headers(hook: WebhookWorld, identity: str) -> None:
    sink = hook.sink()
    sink.put(Result(identity, "door", b'{"id": "p-9"}'), NEVER)
    wait_for(lambda: hook.got() == ["p-9"] or sink.trouble, 20, "the post")
    assert hook.got() == ["p-9"], sink.trouble
    (headers, _) = hook.posts[0]
    assert "x-evil" not in headers and headers["webhook-id"].isascii() and len(headers["webhook-id"]) < 300


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\1\2",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" + b"x" * 1000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    ],
    ids=range(8),
)
def test_a_receiver_that_speaks_nonsense_is_tried_again(tmp_path: Path, answer: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                seen.append(client.recv(1 << 16))
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    (settings,) = read_all(SINKS, [{"kind": "webhook", "name": "h", "url": url, "timeout_s": 0.5, "retry_s": 0.1}])
    sink = make_sink(settings, ["door"], Device("f", "d", "127.0.0.1", 1, None, None), tmp_path)
    sink.start()
    sink.put(result(0), NEVER)
    wait_for(lambda: len(seen) >= 2 or sink.counts()["delivered"], 30, sink.trouble)
    assert sink.counts()["refused"] == sink.counts()["dropped"] == 0
    sink.stop(3.0)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_receiver_that_never_answers_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    (settings,) = read_all(SINKS, [{"kind": "webhook", "name": "h", "url": url, "timeout_s": 60}])
    sink = make_sink(settings, ["door"], Device("f", "d", "127.0.0.1", 1, None, None), tmp_path)
    sink.start()
    sink.put(result(0), NEVER)
    client, _ = listener.accept()
    start = time.monotonic()
    sink.stop(2.0)
    assert time.monotonic() - start < 30
    client.close()
    listener.close()


def test_a_line_that_a_full_disk_cut_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LinesFile(tmp_path / "a.jsonl", 1 << 20, 1)
    file.append(b'{"a": 1}')
    real, left = os.write, [3]

    def full(handle: int, data: bytes) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return real(handle, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Trouble, match="No space left"):
            file.append(b'{"b": 2}')
    file.append(b'{"c": 3}')
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"a": 1}\n{"c": 3}\n'


@pytest.mark.parametrize("torn", [b'{"b": ', b"\0" * 5000, b"x" * 200_000])
def test_a_torn_line_is_cut_off_at_the_next_start(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    for whole in (b"", b'{"a": 1}\n', b'{"a": 1}\n' * 20_000):
        path.write_bytes(whole + torn)
        file = LinesFile(path, 1 << 30, 1)
        assert file.repaired_bytes == len(torn)
        file.append(b"{}")
        file.close()
        assert path.read_bytes() == whole + b"{}\n"


def test_a_damaged_spool_is_moved_aside_and_a_new_one_begins(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    spool = Spool(tmp_path / "spool.db", 1 << 20)
    assert spool.append(result(1)) and spool.first() is not None
    spool.close()
    assert [path.name for path in tmp_path.glob("*damaged*")]


def test_a_log_is_no_link_that_leads_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "a.jsonl").symlink_to(target)
    with pytest.raises(Trouble):
        LinesFile(tmp_path / "a.jsonl", 1 << 20, 1)
    assert target.read_text() == "precious"
    assert not stat.S_ISLNK(target.lstat().st_mode)
