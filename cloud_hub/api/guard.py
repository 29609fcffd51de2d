"""The first thing that a request meets: who asks, and whether the table of rights lets them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import cast

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_hub.access import rights
from cloud_hub.access.identify import Access, Refused, Shown
from cloud_hub.access.principals import DEVELOPMENT, Principal, on_behalf_of
from cloud_hub.api.body_limit import chunks, drain
from cloud_hub.api.cookies import SESSION, read_cookie
from cloud_hub.api.errors import problem, records_unusable
from cloud_hub.tls import client_certificate

#: What a refused client may still send before it is cut off, so that it reads why.
_DRAINED_BYTES, _DRAIN_S = 1 << 20, 5.0
_PRINCIPAL, _FOUND = "cloud_hub.principal", "cloud_hub.right"


class Guard:
    """ASGI middleware that lets through what the table of rights allows.

    Args:
        app: the application.
        access: knows who asks.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._access.open:
            await self._serve(DEVELOPMENT, scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there is no such address
        else:
            try:
                principal = await self._admit(scope)
            except Refused as refused:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_S):
                        await drain(chunks(receive), _DRAINED_BYTES)
                await _answer(refused)(scope, receive, send)
            except SQLAlchemyError as error:
                await records_unusable(error)(scope, receive, send)
            else:
                await self._serve(principal, scope, receive, self._watched(scope, send))

    async def _serve(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_PRINCIPAL] = principal
        with on_behalf_of(principal):
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Principal:
        authorization, session = _header(scope, b"authorization"), read_cookie(scope, SESSION)
        renewing = scope["path"] == f"{rights.API}/devices/self/certificate"
        shown = Shown(_address(scope), authorization, session, client_certificate(scope), renewing)
        principal = await run_in_threadpool(self._access.principal, shown)
        found = rights.find(scope["method"], scope["path"])
        scope[_FOUND] = found
        if found is None:
            raise Refused(403, "no right is written down for this address", "see /docs for every address")
        if found.right is None:
            raise Refused(405, "this address has no such method", f"it has {', '.join(found.methods)}")
        if not found.right.allows(principal):
            raise _not_allowed(principal, found.right)
        if found.right.anyone and scope["method"] == "POST":  # whose secret may be in the body
            self._access.check_patience(shown.address)
        if principal.kind == "person" and not authorization:
            _check_same_site(scope)
        return principal

    def _watched(self, scope: Scope, send: Send) -> Send:
        """A handler that answers 401 has seen a wrong secret: that is a guess like any other."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._access.guessed(_address(scope))
            await send(message)

        return watched


def principal(request: Request) -> Principal:
    """FastAPI dependency: who asks."""
    return cast(Principal, request.scope[_PRINCIPAL])


def right_of(request: Request) -> rights.Found | None:
    """The row of the table that let this request through; None where nobody is asked who they are."""
    return cast("rights.Found | None", request.scope.get(_FOUND))


def _check_same_site(scope: Scope) -> None:
    """A browser sends its cookie along whichever page asks it to: what changes something has to come from our own."""
    if scope["method"] in ("GET", "HEAD"):
        return
    site, origin = _header(scope, b"sec-fetch-site"), _header(scope, b"origin")
    own = f"{scope['scheme']}://{_header(scope, b'host')}"
    if site != "same-origin" and not (not site and origin == own):
        raise Refused(403, "a page of another site asked for this", "programs use a token instead of a cookie")


def _not_allowed(principal: Principal, right: rights.Right) -> Refused:
    if principal.kind == "anonymous":
        return Refused(401, "this address asks who you are", "send Authorization: Bearer with a token")
    own = ", ".join(sorted(principal.roles)) or principal.kind
    return Refused(403, f"{own} may not do this", f"it takes one of: {right.sentence}")


def _answer(refused: Refused) -> ASGIApp:
    answer = problem(refused.status, str(refused), refused.hint)
    if refused.status == 401:
        answer.headers["www-authenticate"] = 'Bearer realm="edgeloop"'
    if refused.status == 405:
        answer.headers["allow"] = refused.hint.removeprefix("it has ")
    if refused.retry_after_s:
        answer.headers["retry-after"] = str(math.ceil(refused.retry_after_s))
    return answer


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("unknown",))[0])


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
