"""One client of the HTTP door: its requests are read, handed to a handler, and answered, by asyncio and httptools.

One connection's answers leave in the order of its requests; a handler that answers at once costs no task. Whatever a
client does is bounded: connections, headers, bodies (one, and all together), requests ahead of their answers, answers
that it does not read, and the time that it may take for each.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import field

import httptools

from edge_agent.logs import Log
from edge_agent.serving import content_coding
from edge_agent.serving.http_messages import KnownHead, Request, Response, head_of, known_head, shrunk, without_upgrade
from edge_agent.serving.http_patience import Patience, cut
from edgeloop.records import dataclass

log = Log(__name__)

MAX_HEADER_BYTES = 32 << 10
MAX_PIPELINED = 32
#: Files that are open must leave room for databases and downloads; a process has 1,024 by default.
MAX_CONNECTIONS = 512
#: All bodies that are in memory at once, as a multiple of the largest that one may be.
BODIES_AT_ONCE = 4
#: A sender that has begun a request has so long to finish it, a client to read its answers; an idle connection is kept
#: so long; after a refusal a client's further bytes are thrown away for so long, so that it can still read why.
REQUEST_TIMEOUT_S, READ_TIMEOUT_S, IDLE_TIMEOUT_S, LINGER_S = 30.0, 30.0, 120.0, 2.0

#: When all places are taken, a client that has finished nothing for so long makes way for a new one.
MAKES_WAY_S = 5.0

Handler = Callable[[Request], "Response | Awaitable[Response]"]
ErrorBody = Callable[[str], bytes]


@dataclass
class Shared:
    """What all connections of a door share."""

    handler: Handler
    error_body: ErrorBody
    max_body_bytes: int
    max_connections: int = MAX_CONNECTIONS
    connections: set[Connection] = field(default_factory=set)
    #: Bytes of the bodies whose requests have not been answered yet.
    held_bytes: int = 0
    closing: bool = False

    def make_room(self) -> bool:
        """Close the connection that has been quiet for the longest; False when none has been for `MAKES_WAY_S`."""
        quietest = min(self.connections, key=lambda connection: connection.quiet_since)
        if asyncio.get_running_loop().time() - quietest.quiet_since < MAKES_WAY_S:
            return False
        quietest.make_way()
        return True


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, door: Shared) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._patience = Patience(self._loop, self._late)
        self._held = 0
        # Refused: what still comes is thrown away. Stuck: the client does not read its answers.
        self._refused = self._stuck = False
        self._refusal: Response | None = None
        # The request that the latest bytes completed, and the head that is likely to come again.
        self._completed: Request | None = None
        self._known: KnownHead | None = None
        # Of the request that is being read; `on_message_begin` starts the next one.
        self._url, self._headers = b"", dict[bytes, bytes]()
        self._body: list[bytes] = []
        self._body_bytes = self._header_bytes = 0
        self._headers_done = self._in_request = False

    # ── asyncio.Protocol ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._door.connections.add(self)
        if len(self._door.connections) > self._door.max_connections and not self._door.make_room():
            self._refuse(503, f"{self._door.max_connections} clients are connected already; try again in a moment")
        else:
            self._patience.wait(IDLE_TIMEOUT_S)

    def eof_received(self) -> None:
        """The client sends no more, and is taken to be gone; one that still reads learns that its request broke off."""
        if self._in_request and not self.busy:
            self._refuse(400, "the request breaks off")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nothing is computed for it any more."""
        if self._task is not None:
            # Not before it has begun: a task that never did would not tell those whom it was to wait for.
            self._loop.call_soon(self._task.cancel)
        self._door.connections.discard(self)
        self._release(self._held)
        self._queue.clear()
        self._transport = None
        self._patience.end()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        known = self._known
        if known is not None and not self._in_request and len(data) == known.size and data.startswith(known.head):
            self._take_known(known, data)
            return
        if self._refused:
            return
        if not self._headers_done:
            self._header_bytes += len(data)
        at_start, self._completed = not self._in_request, None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is not HTTP/1.1: {error}")
        else:
            if not self._headers_done and self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(431, f"headers may have {MAX_HEADER_BYTES} bytes")
            elif at_start and not self._in_request and self._completed is not None:
                self._known = known_head(data, self._completed)

    def _take_known(self, known: KnownHead, data: bytes) -> None:
        """A whole request whose head is, byte for byte, that of the one before: what it says is known already."""
        body = data[len(known.head) :]
        if not self._hold(len(body)):
            return
        self._queue.append(known.request._replace(body=body))
        if self._task is None:
            self._serve()
        elif len(self._queue) >= MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not read its answers: nothing is read from it or done for it until it does."""
        self._stuck = True
        self._patience.wait(READ_TIMEOUT_S)
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stuck = False
        if self._task is None:
            self._serve()

    # ── httptools' callbacks ──────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers, self._body = b"", {}, []
        self._body_bytes = self._header_bytes = 0
        self._headers_done, self._in_request = False, True
        self._patience.wait(REQUEST_TIMEOUT_S)

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; those after the body are thrown away."""
        if not self._headers_done:
            self._headers[name.lower()] = value
        else:
            self._header_bytes += len(name) + len(value)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(431, f"headers may have {MAX_HEADER_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """The body comes next."""
        self._headers_done = True
        length = self._headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._door.max_body_bytes:
            self._refuse(413, f"a body may have {self._door.max_body_bytes} bytes (max_body_bytes)")
        # While an earlier request is being answered this line would come before its answer; clients wait a while only.
        elif b"expect" in self._headers and self._transport is not None and not self.busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._refused:
            return
        self._body_bytes += len(body)
        if self._hold(len(body)):
            self._body.append(body)

    def _hold(self, size: int) -> bool:
        """Take more bytes of a body into memory; False when there is no room for them, which has been said then."""
        door = self._door
        self._held += size
        door.held_bytes += size
        if self._body_bytes > door.max_body_bytes:
            self._refuse(413, f"a body may have {door.max_body_bytes} bytes (max_body_bytes)")
        elif door.held_bytes > BODIES_AT_ONCE * door.max_body_bytes:
            self._refuse(503, "other requests take all the memory that there is for them; try again in a moment")
        else:
            return True
        return False

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._refused or self._parser.should_upgrade():
            return
        self._in_request = False
        parser, parts = self._parser, self._body
        keep = parser.should_keep_alive()
        path = self._url.partition(b"?")[0].decode("latin-1")
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if b"content-encoding" in self._headers:
            body = self._expand(self._headers[b"content-encoding"], body)
            if self._refused:
                return
        old = keep and parser.get_http_version() == "1.0"
        request = Request(parser.get_method().decode("latin-1"), path, self._headers, body, keep, old)
        self._completed = request
        self._queue.append(request)
        self._body = []
        self._headers_done, self._header_bytes = False, 0
        if self._task is None:
            self._serve()
        elif len(self._queue) >= MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    def _expand(self, coding: bytes, body: bytes) -> bytes:
        """Undo the body's compression; when that cannot be, the request is refused."""
        try:
            found = content_coding.expand(coding, body, self._door.max_body_bytes)
        except content_coding.UnknownCoding as error:
            self._refuse(415, str(error))
        except content_coding.TooLarge as error:
            self._refuse(413, f"{error} (max_body_bytes)")
        except content_coding.Damaged as error:
            self._refuse(400, str(error))
        else:
            self._hold(len(found) - len(body))
            return found
        return b""

    def _stay(self, rest: bytes) -> None:
        """Go on with HTTP/1.1, as a server may that is offered another protocol (Java's client offers HTTP/2).

        The parser thinks that the request's body belongs to that protocol; one that never saw the offer does not.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "this is no proxy")
            return
        again = without_upgrade(method, self._url, self._parser.get_http_version().encode(), self._headers)
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(again + rest)

    # ── answering ─────────────────────────────────────────────────────────────────────────────

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._task is not None or (bool(self._queue) and not self._stuck)

    @property
    def quiet_since(self) -> float:
        """When it last began or finished something, in the loop's time; for ever in the future while it is served."""
        gone = self._refused or self._transport is None or self._transport.is_closing()
        return math.inf if gone or self.busy else self._patience.since

    def make_way(self) -> None:
        """End a connection that is quiet, for another client."""
        if self._in_request and not self._stuck:
            self._refuse(408, f"others wait, and this request was not finished within {MAKES_WAY_S:.0f} s")
        else:
            self.close()

    def close(self) -> None:
        """Close the connection; an answer that the client does not read is given up."""
        if self._transport is not None:
            if self._stuck:
                cut(self._transport)
            else:
                self._transport.close()

    def _serve(self) -> None:
        """Answer what is queued, until something has to be waited for."""
        while self._queue and not self._stuck:
            request = self._queue.popleft()
            try:
                answer = self._door.handler(request)
            except Exception:
                answer = self._broken(request)
            if not isinstance(answer, Response):
                self._task = self._loop.create_task(self._finish(request, answer))
                return
            self._write(request, answer)
        if self._transport is not None and not self._stuck:
            if self._refusal is not None:
                self._say_refusal(self._transport, self._refusal)
            elif not self._in_request:
                self._patience.wait(IDLE_TIMEOUT_S)
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
        return Response(500, self._door.error_body("this is a fault of the agent; its log has the details"))

    def _write(self, request: Request, response: Response) -> None:
        self._release(len(request.body))
        if self._transport is None or self._transport.is_closing():
            return
        if len(response.body) >= content_coding.WORTH_BYTES and b"accept-encoding" in request.headers:
            response = shrunk(response, request.headers[b"accept-encoding"])
        keep = request.keep_alive and not self._door.closing
        tail = ("connection: keep-alive\r\n" if request.old else "") if keep else "connection: close\r\n"
        head = head_of(response, tail)
        self._transport.write(head if request.method == "HEAD" else head + response.body)
        if not keep:
            self._queue.clear()
            self._transport.close()  # when all of it has been read
            self._patience.wait(READ_TIMEOUT_S)

    def _release(self, size: int) -> None:
        """Bytes of a body that are no longer held; all of them are released when the connection is lost."""
        size = min(size, self._held)
        self._held -= size
        self._door.held_bytes -= size

    def _refuse(self, status: int, text: str) -> None:
        """Answer with an error and close: after a broken request nothing more of this connection can be trusted."""
        if self._refused:
            return
        self._refused, self._in_request, self._known = True, False, None
        self._release(self._body_bytes)
        self._body, self._headers = [], {}
        self._refusal = Response(status, self._door.error_body(text))
        if self._task is None:  # else after the answers that come first
            self._serve()

    def _say_refusal(self, transport: asyncio.Transport, refusal: Response) -> None:
        """Say why, and end our half of the connection.

        Bytes that are under way would make the kernel reset the connection before the client has read it, so they are
        read and thrown away for a moment.
        """
        self._refusal = None
        if transport.is_closing():
            return
        transport.write(head_of(refusal, "connection: close\r\n") + refusal.body)
        if transport.can_write_eof():
            transport.write_eof()
        self._patience.wait(LINGER_S, exactly=True)

    def _late(self) -> None:
        """Nothing complete has come in time, or gone."""
        if self._transport is None:
            return
        if self.busy:
            self._patience.look_in(1.0)
        elif self._refused or self._stuck or self._transport.is_closing():
            cut(self._transport)
        elif self._in_request:
            self._refuse(408, f"the request was not finished within {REQUEST_TIMEOUT_S:.0f} s")
        else:
            self.close()
