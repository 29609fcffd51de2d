"""Tables and videos that are none, or only partly: a trouble or a rejected row, and no end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.ports import Rejected, Trouble
from edge_agent.flows.sources.camera import CameraSource
from edge_agent.flows.sources.replay import ReplaySource
from edge_agent.flows.tables import MAX_LINE
from tests.attacks.hostile_contents import MODEL
from tests.conformance.flows.sources import take


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
