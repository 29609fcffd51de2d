"""The HTTP door, byte by byte over real sockets: what HTTP/1.1 allows, in order, and an orderly end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.serving.http import MAX_PIPELINED, Request, Response
from tests.doubles.door import Client, Got, RunningDoor, connected


class Echo:
    """Says back what it was asked; /slow waits in a thread, /broken raises, /big sends much."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.gate = threading.Event()
        self.gate.set()
        self.slow_under_way = threading.Semaphore(0)

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        self.seen.append(request)
        if request.path.startswith("/slow"):
            return self._slow(request)
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
