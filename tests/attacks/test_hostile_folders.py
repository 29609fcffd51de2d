"""What a stranger can lay into a folder that is watched is set aside with a reason, and stops nobody."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.flow import Flow, FlowSettings
from edge_agent.flows.ports import Gone, Rejected, Result, Trouble
from edge_agent.flows.sources.folder import AT_ONCE, FolderSource
from edge_agent.serving.dataplane import DataPlane
from tests.attacks.hostile_contents import MODEL, encoded, png, saved, zipped
from tests.conformance.flows.sources import rows, take
from tests.doubles.door import loaded
from tests.doubles.packages import make_package
from tests.integration.hub_process import wait_for


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
