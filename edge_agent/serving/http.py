"""The HTTP door: an asyncio protocol on httptools. It reads requests, hands them to a handler, writes what comes back.

One connection's answers leave in the order of its requests; a handler that answers at once costs no task. Headers,
bodies and the time that a sender may take are bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools
import structlog

log = structlog.get_logger(__name__)

MAX_HEADER_BYTES = 32 << 10
MAX_PIPELINED = 32
#: A sender that has begun a request has so long to finish it; an idle connection is kept so long.
REQUEST_TIMEOUT_S, IDLE_TIMEOUT_S = 30.0, 120.0


@dataclass(frozen=True)
class Request:
    """A whole request: method, path without the query, header names in lower case, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], "Response | Awaitable[Response]"]
ErrorBody = Callable[[str], bytes]


@dataclass
class Door:
    """What all connections share."""

    handler: Handler
    error_body: ErrorBody
    max_body_bytes: int
    connections: set[Connection] = field(default_factory=set)
    closing: bool = False

    async def open(self, host: str, port: int) -> asyncio.Server:
        """Listen; raises OSError when the address is taken."""
        return await asyncio.get_running_loop().create_server(lambda: Connection(self), host, port, backlog=512)

    async def drain(self, timeout_s: float) -> None:
        """Let requests that are under way end, then close every connection."""
        self.closing = True
        end = asyncio.get_running_loop().time() + timeout_s
        while any(c.busy for c in self.connections) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Request] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self._until = 0.0
        # Of the request that is being read; `_fresh` starts the next one.
        self._url, self._headers = b"", dict[str, str]()
        self._body: list[bytes] = []
        self._body_bytes = self._header_bytes = 0
        self._headers_done = self._in_request = False

    # ── asyncio.Protocol ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._door.connections.add(self)
        self._wait(IDLE_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone; what runs for it ends by itself, since the run is counted all the same."""
        self._door.connections.discard(self)
        self._stop_timer()
        self._queue.clear()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._failed:
            return
        if not self._in_request:
            self._in_request = True
            self._wait(REQUEST_TIMEOUT_S)
        self._header_bytes += len(data) if not self._headers_done else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "no protocol to upgrade to is spoken here")
        except httptools.HttpParserError as error:
            if not self._failed:
                self._refuse(HTTPStatus.BAD_REQUEST, f"this is not HTTP/1.1: {error}")
        else:
            if not self._headers_done and self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers may have {MAX_HEADER_BYTES} bytes")

    def pause_writing(self) -> None:
        """The client does not read its answers: nothing more is read from it until it does."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._transport is not None and len(self._queue) < MAX_PIPELINED:
            self._transport.resume_reading()

    # ── httptools' callbacks ──────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request begins."""
        self._fresh()
        self._in_request = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body comes next."""
        self._headers_done = True
        length = self._headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._door.max_body_bytes:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a body may have {self._door.max_body_bytes} bytes",
            )
        elif self._headers.get("expect", "").lower() == "100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._door.max_body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {self._door.max_body_bytes} bytes")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._failed:
            return
        self._in_request = False
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep = self._parser.should_keep_alive() and not self._door.closing
        path = self._url.split(b"?", 1)[0].decode("latin-1")
        self._queue.append(Request(self._parser.get_method().decode("latin-1"), path, self._headers, body, keep))
        self._headers_done, self._header_bytes = False, 0
        if len(self._queue) >= MAX_PIPELINED and self._transport:
            self._transport.pause_reading()
        if self._task is None:
            self._serve()

    # ── answering ─────────────────────────────────────────────────────────────────────────────

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._task is not None or bool(self._queue)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _serve(self) -> None:
        """Answer what is queued, until something has to be waited for."""
        while self._queue:
            request = self._queue.popleft()
            try:
                answer = self._door.handler(request)
            except Exception:
                answer = self._broken(request)
            if not isinstance(answer, Response):
                self._task = asyncio.ensure_future(self._finish(request, answer))
                return
            self._write(request, answer)
        if self._transport is not None and not self._in_request:
            self._wait(IDLE_TIMEOUT_S)
            self._transport.resume_reading()

    async def _finish(self, request: Request, answer: Awaitable[Response]) -> None:
        try:
            response = await answer
        except Exception:
            response = self._broken(request)
        self._task = None
        self._write(request, response)
        self._serve()

    def _broken(self, request: Request) -> Response:
        log.exception("a request broke the handler", method=request.method, path=request.path[:200])
        text = "this is a fault of the agent; its log has the details"
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, self._door.error_body(text))

    def _write(self, request: Request, response: Response) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        keep = request.keep_alive and not self._door.closing
        extra = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        head = (
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
            f"content-type: {response.content_type}\r\ncontent-length: {len(response.body)}\r\n{extra}"
            f"{'' if keep else 'connection: close' + chr(13) + chr(10)}\r\n"
        ).encode("latin-1")
        self._transport.write(head if request.method == "HEAD" else head + response.body)
        if not keep:
            self._transport.close()

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer with an error and close: after a broken request nothing more of this connection can be trusted."""
        if self._failed:
            return
        self._failed = True
        self._write(Request("", "", {}, b"", keep_alive=False), Response(int(status), self._door.error_body(text)))

    # ── timers ────────────────────────────────────────────────────────────────────────────────

    def _fresh(self) -> None:
        self._url, self._headers, self._body = b"", {}, []
        self._body_bytes = self._header_bytes = 0
        self._headers_done = self._in_request = False

    def _wait(self, seconds: float) -> None:
        """Close the connection when nothing complete has come in ``seconds``."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """The timer looks once in a while; most requests only move the time that it looks at."""
        self._timer = None
        left = self._until - asyncio.get_running_loop().time()
        if self.busy or left > 0:
            self._timer = asyncio.get_running_loop().call_later(max(left, 1.0), self._late)
        elif self._in_request:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request was not finished within {REQUEST_TIMEOUT_S:.0f} s")
        else:
            self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
