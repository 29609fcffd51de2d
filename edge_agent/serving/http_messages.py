"""HTTP's messages: a request as it was read, a response and its bytes, and heads that come again."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from edge_agent.serving import content_coding

LONGEST_KNOWN_HEAD = 2048
#: Headers after which more happens than an answer.
_SPECIAL = {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Request(NamedTuple):
    """A whole request: method, path without the query, header names in lower case, body."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    old: bool = False


class Response(NamedTuple):
    """What goes back; ``headers`` are whole lines, each with its end."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: str = ""


class KnownHead(NamedTuple):
    """A head that was read before: its bytes, those of the whole request, and what was read."""

    head: bytes
    size: int
    request: Request


def shrunk(response: Response, accepted: bytes) -> Response:
    """A response as its client likes it best, where that is smaller."""
    coding = content_coding.choose(accepted)
    body = None if coding is None else content_coding.shrink(coding, response.body)
    if body is None:
        return response
    said = f"{response.headers}content-encoding: {coding}\r\nvary: accept-encoding\r\n"
    return response._replace(body=body, headers=said)


def known_head(data: bytes, request: Request) -> KnownHead | None:
    """What is to be remembered of a request that came in one piece; None where its bytes alone do not say all.

    Clients that stay connected send the same head again and again. What it says is a function of its bytes, so the
    parser, which calls back for each header, need not read it twice.
    """
    headers, size = request.headers, len(data) - len(request.body)
    usual = request.keep_alive and not request.old and headers.get(b"content-length") == b"%d" % len(request.body)
    if not usual or size > LONGEST_KNOWN_HEAD or headers.keys() & _SPECIAL or data[size - 4 : size] != b"\r\n\r\n":
        return None
    return KnownHead(data[:size], len(data), request._replace(body=b""))


def without_upgrade(method: bytes, target: bytes, version: bytes, headers: Mapping[bytes, bytes]) -> bytes:
    """The head of a request, made anew from what was read of it, as of one that offers no other protocol.

    Args:
        method: such as ``POST``.
        target: as it came.
        version: of HTTP, such as ``1.1``.
        headers: names in lower case.
    """
    lines = [b"%b: %b\r\n" % header for header in headers.items() if header[0] not in (b"connection", b"upgrade")]
    if b"close" in headers.get(b"connection", b"").lower():
        lines.append(b"connection: close\r\n")
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version, b"".join(lines))


def head_of(response: Response, tail: str) -> bytes:
    """Status line and headers; ``tail`` is more whole lines."""
    return (
        f"HTTP/1.1 {response.status} {_PHRASES[response.status]}\r\ncontent-type: {response.content_type}\r\n"
        f"content-length: {len(response.body)}\r\n{response.headers}{tail}\r\n"
    ).encode("latin-1")
