"""No request makes the hub hold more in memory than it wants: a limit on bodies, also without a Content-Length."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_hub.api.errors import problem


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
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > limit:
            await self._refuse(scope, receive, send, limit)
            return
        # A chunked body announces nothing: it is read here, as far as the limit.
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                await self._refuse(scope, receive, send, limit)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        answer = problem(413, f"the body is larger than {limit} bytes", "send files as blobs, one request each")
        answer.headers["connection"] = "close"  # the rest of the body is not read
        await answer(scope, receive, send)
