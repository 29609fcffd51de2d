"""The benchmarks' load generator, on a server that answers in the ways in which servers do."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.kit.load import Clients, Load, LoadError, arrivals
from benchmarks.kit.requests import http
from benchmarks.serving.comparison import take_turns
from benchmarks.serving.peer import known

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the load generator needs Linux")

BODY = b"x" * 100
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + BODY + b"\r\n0\r\n\r\n"
#: Larger than any socket's buffer, so that it is sent in pieces.
REQUEST = http("/", b"y" * (8 << 20), {})


@contextlib.contextmanager
def server(*pieces: bytes, request: bytes = REQUEST) -> Iterator[int]:
    """Answers each request of one client after the other with these pieces, sent one by one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=answer, args=(client,), daemon=True).start()

        def answer(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while client.recv(len(request), socket.MSG_WAITALL) == request:
                    for piece in pieces:
                        client.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    "pieces",
    [(WHOLE,), (WHOLE[:20], WHOLE[20:]), (WHOLE[:-100], BODY), (CHUNKED,), (CHUNKED[:70], CHUNKED[70:])],
    ids=["whole", "cut in the head", "head, then body", "chunked", "chunked and cut"],
)
def test_an_answer_counts_when_it_is_whole(pieces: tuple[bytes, ...]) -> None:
    with server(*pieces) as port, Clients(port, 2, REQUEST) as clients:
        assert BODY in clients.answer[1]
        assert clients.run(0.2).per_second > 0


def test_an_error_ends_the_load() -> None:
    with server(WHOLE.replace(b"200 OK", b"503 Busy")) as port, pytest.raises(LoadError, match="503 Busy"):
        Clients(port, 1, REQUEST)


def test_open_load_has_as_many_answers_as_requests_were_due() -> None:
    small = http("/", b"z", {})
    with server(WHOLE, request=small) as port, Clients(port, 4, small) as clients:
        load = clients.arrive(100.0, 0.5, seed=1)
    due = arrivals(100.0, 0.5, seed=1)
    assert len(due) == 50
    assert load.per_second <= 50 / due[-1]
    assert 0 < load.p50 <= load.p99


def test_every_peer_says_how_it_is_installed_and_asked() -> None:
    peers = known()
    assert set(peers) == {"mlserver", "litserve", "bentoml", "kserve", "pytriton"}
    for peer in peers.values():
        assert all("==" in requirement for requirement in peer.requirements)
        assert b"POST " + peer.path.encode() in peer.encoder(peer.path, "x", np.zeros((1, 4), np.float32))


class Fake:
    """A target that answers so many requests a second, or breaks."""

    pid = 0

    def __init__(self, name: str, per_second: float) -> None:
        self.name, self._per_second = name, per_second

    def closed(self, connections: int, seconds: float) -> Load:
        if not self._per_second:
            raise LoadError("it broke")
        return Load(self._per_second, 0.0, 0.0)

    def open(self, per_second: float, seconds: float, seed: int) -> Load:
        return self.closed(1, seconds)


def test_a_target_that_breaks_is_named_and_the_rest_goes_on() -> None:
    failures: dict[str, str] = {}
    targets = [Fake("fast", 10.0), Fake("broken", 0.0), Fake("slow", 5.0)]
    found = take_turns(targets, lambda target: target.closed(1, 0.0), 3, failures)
    assert failures == {"broken": "it broke"}
    assert set(found.names()) == {"fast", "slow"}
    assert found.ratio("fast", "slow") == 2.0
    assert math.isnan(found.ratio("fast", "broken"))
