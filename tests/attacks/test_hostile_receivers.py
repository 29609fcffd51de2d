"""What the other side of a sink can answer, and what a full disk leaves: nothing is lost, and nobody held up."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.flow_settings import SINKS, read_all
from edge_agent.flows.assembly import make_sink
from edge_agent.flows.brokers import Device
from edge_agent.flows.lines import LinesFile
from edge_agent.flows.ports import Result, Trouble
from edge_agent.flows.spool import Spool
from tests.attacks.hostile_contents import NEVER
from tests.conformance.flows.sinks import WebhookWorld, result
from tests.integration.hub_process import wait_for


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
