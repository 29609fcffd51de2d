"""What every answer tells a browser: believe its type, show it in no frame, run nothing of it, keep nothing."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
#: The pages of the documentation load their scripts from where FastAPI has them; they have no rights of their own.
_DOCUMENTATION = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' https://cdn.jsdelivr.net "
    "https://fonts.googleapis.com; font-src https://fonts.gstatic.com; worker-src blob:; "
    "img-src data: https://fastapi.tiangolo.com https://cdn.redoc.ly"
)
#: A browser that has seen the hub over TLS asks over nothing else for a year.
_ONLY_TLS = "max-age=31536000"


class SecureHeaders:
    """ASGI middleware that adds them; what a handler set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                documentation = scope["path"].startswith(("/docs", "/redoc"))
                headers["content-security-policy"] = _DOCUMENTATION if documentation else _NOTHING
                headers.setdefault("cache-control", "no-store")
                for name, value in _ALWAYS.items():
                    headers[name] = value
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = _ONLY_TLS
            await send(message)

        await self._app(scope, receive, sent)
