"""The agent's HTTP client against real servers, the wrong ones included."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge_agent.web import Client, WebError

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Note: hi\r\n\r\nhello"


@contextmanager
def server(*connections: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Answers the requests of each connection with the bytes given for it, then closes it; gives URL and requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        for answers in connections:
            connection, _ = listening.accept()
            with connection:
                for answer in answers:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        if not (more := connection.recv(1 << 16)):
                            break
                        request += more
                    asked.append(request)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        thread.join(10)
        listening.close()


def body(client: Client, url: str, **headers: str) -> bytes:
    with client.get(url, headers) as answer:
        assert answer.status == 200
        return answer.read(100)


def test_one_connection_carries_several_answers() -> None:
    with server([WHOLE, WHOLE]) as (url, asked), Client(5.0) as client:
        assert body(client, f"{url}/a?b=1", Range="bytes=3-") == b"hello"
        assert body(client, f"{url}/c") == b"hello"
    assert asked[0].startswith(b"GET /a?b=1 HTTP/1.1\r\n") and b"Range: bytes=3-\r\n" in asked[0]
    assert asked[1].startswith(b"GET /c ")


def test_a_kept_connection_that_the_server_has_closed_is_made_anew() -> None:
    with server([WHOLE], [WHOLE]) as (url, asked), Client(5.0) as client:
        assert body(client, url) == b"hello"
        assert body(client, url) == b"hello"
    assert len(asked) == 2


def test_an_answer_that_is_left_unread_does_not_spoil_the_next() -> None:
    with server([WHOLE], [WHOLE]) as (url, _), Client(5.0) as client:
        with client.get(url) as answer:
            assert answer.headers["x-note"] == "hi"
        assert body(client, url) == b"hello"


def test_what_came_before_a_connection_ended_is_not_lost() -> None:
    with server([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"]) as (url, _), Client(5.0) as client:
        found = b""
        with client.get(url) as answer, pytest.raises(WebError, match="4 bytes before the end"):
            for chunk in answer.chunks():
                found += chunk
        assert found == b"hello"


def test_chunked_bodies_are_read_and_bounded() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    with server([chunked], [chunked]) as (url, _), Client(5.0) as client:
        assert body(client, url) == b"hello"
        with client.get(url) as answer, pytest.raises(WebError, match="more than 4 bytes"):
            answer.read(4)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with server([moved]) as (url, _), Client(5.0) as client, client.get(url) as answer:
        assert (answer.status, answer.headers["location"], answer.read(0)) == (302, "http://127.0.0.1:9/", b"")


@pytest.mark.parametrize(
    "sent",
    [b"", b"hello\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"],
)
def test_what_is_no_http_is_one_kind_of_error(sent: bytes) -> None:
    with server([sent]) as (url, _), Client(5.0) as client, pytest.raises(WebError), client.get(url):
        pass


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "file:///etc/passwd", "http://127.0.0.1:99999/", "http://127.0.0.1/a b"]
)
def test_what_is_no_url_is_said(url: str) -> None:
    with Client(5.0) as client, pytest.raises(WebError), client.get(url):
        pass


def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with listening, Client(0.1) as client, pytest.raises(WebError, match="timed out"), client.get(url):
        pass


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with Client(1.0) as client, pytest.raises(WebError, match="refused"), client.get(url):
        pass
