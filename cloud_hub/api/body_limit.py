"""No request makes the hub hold more in memory than it wants: a limit on bodies, also without a Content-Length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_hub.api.errors import problem

#: Enough for every honest mistake; what sends more is cut off.
DRAINED_BYTES = 64 << 20


class BodyLimit:
    """ASGI middleware that answers 413 to a body over the limit.

    Args:
        app: the application.
        limit_of: method and path → largest body in bytes, or None where the handler itself streams and counts.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str, str], int | None]) -> None:
        self._app, self._limit_of = app, limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        limit = self._limit_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        arriving = chunks(receive)
        # A chunked body announces nothing: it is read here, as far as the limit.
        async for chunk in arriving:
            body += chunk
            if len(body) > limit:
                await drain(arriving)
                answer = problem(413, f"the body is larger than {limit} bytes", "send files as blobs, one request each")
                await answer(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


async def drain(arriving: AsyncIterator[bytes], most: int = DRAINED_BYTES) -> None:
    """Read on without keeping, up to ``most`` bytes.

    A client that is cut off while it sends never reads the answer that says why.
    """
    read = 0
    async for chunk in arriving:
        read += len(chunk)
        if read > most:
            return


async def chunks(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request as it comes."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        more = message.get("more_body", False)
