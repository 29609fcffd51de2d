"""The HTTP door, byte by byte over real sockets: what HTTP/1.1 allows, in order, and an orderly end."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.serving.http_connection import BODIES_AT_ONCE, MAX_PIPELINED
from edge_agent.serving.http_messages import Request, Response
from tests.doubles.door import Client, Got, RunningDoor, connected


class Echo:
    """Says back what it was asked; /slow waits in a thread, /patient for ever, /broken raises, /big sends much."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.gate = threading.Event()
        self.gate.set()
        self.slow_under_way = threading.Semaphore(0)
        self.given_up = threading.Semaphore(0)

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        self.seen.append(request)
        if request.path.startswith("/slow"):
            return self._slow(request)
        if request.path == "/patient":
            return self._patient()
        if request.path == "/broken":
            raise RuntimeError("a fault")
        if request.path == "/big":
            return Response(200, bytes(4 << 20))
        return Response(200, f"{request.method} {request.path} ".encode() + request.body, "text/plain")

    async def _slow(self, request: Request) -> Response:
        self.slow_under_way.release()
        await asyncio.to_thread(self.gate.wait, 10)
        if request.path == "/slow/broken":
            raise RuntimeError("a fault")
        return Response(200, f"slow {request.path}".encode())

    async def _patient(self) -> Response:
        self.slow_under_way.release()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.given_up.release()
            raise
        return Response(200, b"")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def door(echo: Echo) -> Iterator[RunningDoor]:
    door = RunningDoor(echo)
    yield door
    echo.gate.set()
    door.close()


@pytest.fixture
def client(door: RunningDoor) -> Iterator[Client]:
    with connected(door.port) as client:
        yield client


def test_a_connection_is_kept(client: Client, echo: Echo) -> None:
    for number in range(3):
        got = client.request("POST", f"/a?{number}", b"body")
        assert (got.status, got.body) == (200, b"POST /a body")
    assert got.headers == {"content-type": "text/plain", "content-length": "12"}


def test_headers_are_in_lower_case_and_the_query_is_left_out(client: Client, echo: Echo) -> None:
    client.request("GET", "/p?q=1", headers={"X-Some-Thing": "Value"})
    assert echo.seen[0].headers[b"x-some-thing"] == b"Value"
    assert echo.seen[0].path == "/p"


def test_a_request_may_come_byte_by_byte(client: Client) -> None:
    for byte in b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc":
        client.send(bytes([byte]))
    assert client.answer().body == b"POST /x abc"


def test_a_body_may_come_in_chunks(client: Client) -> None:
    client.send(b"POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client.send(b"2;ext=1\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
    assert client.answer().body == b"POST /x abcde"
    assert client.request("GET", "/next").body == b"GET /next "


def test_pipelined_answers_come_in_order_also_when_an_early_one_is_slow(client: Client, echo: Echo) -> None:
    echo.gate.clear()
    client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % path for path in (b"/1", b"/slow/2", b"/3", b"/4")))
    assert client.answer().body == b"GET /1 "
    assert echo.slow_under_way.acquire(timeout=10)
    assert [request.path for request in echo.seen] == ["/1", "/slow/2"], "one at a time"
    echo.gate.set()
    assert [client.answer().body for _ in range(3)] == [b"slow /slow/2", b"GET /3 ", b"GET /4 "]


def test_more_pipelined_than_it_takes_at_once(client: Client, echo: Echo) -> None:
    echo.gate.clear()
    many = 5 * MAX_PIPELINED
    requests = [b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n"]
    requests += [b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % number for number in range(many)]
    sender = threading.Thread(target=lambda: [client.send(request) for request in requests])
    sender.start()
    assert echo.slow_under_way.acquire(timeout=10)
    echo.gate.set()
    answers = [client.answer().body for _ in range(many + 1)]
    sender.join()
    assert answers[1:] == [b"GET /%d " % number for number in range(many)]


def test_others_are_answered_while_one_waits(door: RunningDoor, echo: Echo) -> None:
    echo.gate.clear()
    with connected(door.port) as slow, connected(door.port) as quick:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
        assert echo.slow_under_way.acquire(timeout=10)
        assert quick.request("GET", "/quick").status == 200
        echo.gate.set()
        assert slow.answer().body == b"slow /slow"


def test_head_has_no_body(client: Client) -> None:
    got = client.request("HEAD", "/x")
    assert (got.status, got.headers["content-length"]) == (200, "8")
    assert client.request("GET", "/y").body == b"GET /y "


def test_a_client_that_waits_for_continue_gets_it(client: Client) -> None:
    client.send(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"abc").answer().body == b"POST /x abc"


@pytest.mark.parametrize("ask", [b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /x HTTP/1.0\r\n\r\n"])
def test_a_client_may_have_the_connection_closed(client: Client, ask: bytes) -> None:
    got = client.send(ask).answer()
    assert (got.body, got.headers["connection"]) == (b"GET /x ", "close")
    assert client.ended()


def test_an_old_client_may_keep_its_connection(client: Client) -> None:
    for _ in range(2):
        got = client.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
        assert got.headers["connection"] == "keep-alive"


def test_an_offer_to_upgrade_is_answered_as_plain_http(client: Client) -> None:
    offer = b"POST /x HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    offer += b"Content-Length: 3\r\n\r\n"
    assert client.send(offer + b"abc").answer().body == b"POST /x abc"
    client.send(offer)
    client.send(b"d")
    assert client.send(b"ef" + offer + b"ghi").answer().body == b"POST /x def"
    assert client.answer().body == b"POST /x ghi"
    got = client.send(offer.replace(b"Upgrade, ", b"close, Upgrade, ") + b"abc").answer()
    assert (got.body, got.headers["connection"]) == (b"POST /x abc", "close")


def test_it_is_no_proxy(client: Client) -> None:
    assert client.send(b"CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n").answer().status == 405
    assert client.ended()


def test_a_fault_of_the_handler_is_a_500_and_the_connection_goes_on(client: Client) -> None:
    for path in ("/broken", "/slow/broken"):
        got = client.request("GET", path)
        assert got.status == 500
        assert b"a fault of the agent" in got.body
    assert client.request("GET", "/x").status == 200


def test_a_large_answer_is_whole_also_before_the_connection_closes(client: Client) -> None:
    assert len(client.request("GET", "/big").body) == 4 << 20
    got = client.request("GET", "/big", headers={"Connection": "close"})
    assert len(got.body) == 4 << 20
    assert client.ended()


def test_many_clients_at_once(door: RunningDoor) -> None:
    def ask(number: int) -> list[Got]:
        with connected(door.port) as client:
            return [client.request("POST", f"/{number}/{turn}", b"x" * number) for turn in range(5)]

    with ThreadPoolExecutor(20) as pool:
        for number, answers in enumerate(pool.map(ask, range(60))):
            assert [got.body for got in answers] == [f"POST /{number}/{t} {'x' * number}".encode() for t in range(5)]


def test_an_orderly_end_lets_requests_end_and_takes_no_new_ones(door: RunningDoor, echo: Echo) -> None:
    echo.gate.clear()
    with connected(door.port) as busy, connected(door.port) as idle:
        assert idle.request("GET", "/x").status == 200
        busy.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
        assert echo.slow_under_way.acquire(timeout=10)
        ending = threading.Thread(target=door.drain)
        ending.start()
        while not door.door.closing:
            time.sleep(0.01)
        echo.gate.set()
        got = busy.answer()
        assert (got.status, got.headers["connection"]) == (200, "close")
        ending.join()
        assert busy.ended() and idle.ended()


def test_an_orderly_end_does_not_wait_for_ever(door: RunningDoor, echo: Echo) -> None:
    echo.gate.clear()
    with connected(door.port) as busy:
        busy.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
        assert echo.slow_under_way.acquire(timeout=10)
        start = time.monotonic()
        door.drain(0.1)
        assert time.monotonic() - start < 5
        assert busy.ended()


def test_what_was_held_for_a_request_is_given_back(door: RunningDoor, echo: Echo) -> None:
    with connected(door.port) as client:
        client.request("POST", "/x", bytes(1000))
        client.request("POST", "/slow", bytes(1000))
        client.send(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc")
        end = time.monotonic() + 10
        while door.call(lambda: door.door.held_bytes) != 3:
            assert time.monotonic() < end
    while door.call(lambda: (door.door.held_bytes, len(door.door.connections))) != (0, 0):
        assert time.monotonic() < end


@pytest.mark.parametrize("reset", [True, False])
def test_nothing_is_computed_for_a_client_that_has_gone(door: RunningDoor, echo: Echo, reset: bool) -> None:
    client = Client(door.port)
    client.send(b"GET /patient HTTP/1.1\r\nHost: t\r\n\r\nGET /later HTTP/1.1\r\nHost: t\r\n\r\n")
    assert echo.slow_under_way.acquire(timeout=10)
    if reset:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert echo.given_up.acquire(timeout=10)
    assert [request.path for request in echo.seen] == ["/patient"], "what came after it is not begun"


def test_a_client_that_has_gone_at_once_is_known_to_whom_it_asked(door: RunningDoor, echo: Echo) -> None:
    """Request and end arrive in the same round of the event loop: what answers has not begun by then."""
    with connected(door.port) as client:
        assert client.request("GET", "/a").status == 200

        def both() -> None:
            (connection,) = door.door.connections
            connection.data_received(b"GET /patient HTTP/1.1\r\nHost: t\r\n\r\n")
            connection.connection_lost(None)

        door.call(both)
        assert echo.given_up.acquire(timeout=10)


def test_a_client_that_ends_its_half_still_gets_what_was_answered_at_once(client: Client) -> None:
    client.send(b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer().body == b"GET /a "
    assert client.ended()


def test_a_client_that_ends_its_half_too_early_is_told_so(client: Client) -> None:
    client.send(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab")
    client.socket.shutdown(socket.SHUT_WR)
    got = client.answer()
    assert (got.status, b"breaks off" in got.body) == (400, True)
    assert client.ended()


# ── compressed bodies ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_a_body_may_come_compressed(client: Client, coding: str, compress: Callable[[bytes], bytes]) -> None:
    for body in (b"hello", b"a" * 100_000, b"hello"):
        got = client.request("POST", "/a", compress(body), {"Content-Encoding": coding})
        assert got.body == b"POST /a " + body


def test_an_answer_goes_compressed_where_that_is_wanted_and_pays(client: Client) -> None:
    body = b"0.125," * 1000
    for accepted, coding in (
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=0.5", "deflate"),
        ("br", None),
        ("gzip;q=0", None),
    ):
        got = client.request("POST", "/a", body, {"Accept-Encoding": accepted})
        assert got.headers.get("content-encoding") == coding
        expand = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding]
        assert expand(got.body) == b"POST /a " + body
        assert len(got.body) < 100 or coding is None
    for unfit in (b"short", random.Random(5).randbytes(5000)):
        got = client.request("POST", "/a", unfit, {"Accept-Encoding": "gzip"})
        assert (got.headers.get("content-encoding"), got.body) == (None, b"POST /a " + unfit)


@pytest.mark.parametrize(
    ("coding", "body", "status", "said"),
    [
        ("br", b"abc", 415, "there are gzip, deflate"),
        ("gzip", b"abc", 400, "is not gzip"),
        ("gzip", gzip.compress(b"abc")[:-1], 400, "breaks off"),
        ("gzip", b"", 400, "breaks off"),
        ("gzip", gzip.compress(bytes(100 << 20)), 413, "max_body_bytes"),
        ("deflate", zlib.compress(bytes(1 << 20) + b"a"), 413, "max_body_bytes"),
    ],
    ids=range(6),
)
def test_a_compressed_body_that_is_refused(
    door: RunningDoor, echo: Echo, coding: str, body: bytes, status: int, said: str
) -> None:
    with connected(door.port) as client:
        got = client.request("POST", "/a", body, {"Content-Encoding": coding})
        assert (got.status, said in got.body.decode()) == (status, True), got
        assert client.ended()
    assert not echo.seen
    assert door.call(lambda: door.door.held_bytes) == 0


def test_compressed_bodies_count_with_their_true_size(echo: Echo) -> None:
    """Small bodies that grow large, all at once: no more memory is taken than for large ones."""
    door = RunningDoor(echo, max_body_bytes=1 << 20)
    echo.gate.clear()
    clients = [Client(door.port) for _ in range(BODIES_AT_ONCE + 2)]
    try:
        body = gzip.compress(bytes(1 << 20))
        head = f"POST /slow HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        for client in clients[:BODIES_AT_ONCE]:
            client.send(head.encode() + body)
            assert echo.slow_under_way.acquire(timeout=10)
        for client in clients[BODIES_AT_ONCE:]:
            client.send(head.encode() + body)
            assert client.answer().status == 503
        assert door.call(lambda: door.door.held_bytes) == BODIES_AT_ONCE << 20
        echo.gate.set()
        for client in clients[:BODIES_AT_ONCE]:
            assert client.answer().status == 200
        assert door.call(lambda: door.door.held_bytes) == 0
    finally:
        echo.gate.set()
        for client in clients:
            client.close()
        door.close()
