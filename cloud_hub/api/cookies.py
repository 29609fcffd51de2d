"""The hub's cookies: for no script, no other site, no other host, and over TLS only where there is TLS."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

SESSION, SIGN_IN = "edgeloop-session", "edgeloop-sign-in"


def _name(scheme: str, name: str) -> str:
    """``__Host-``: a browser takes such a cookie only over TLS, for this host alone, so no neighbour can set it."""
    return f"__Host-{name}" if scheme == "https" else name


def read_cookie(scope: Mapping[str, Any], name: str) -> str:
    """A cookie of a request, or ""."""
    text = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"cookie"), "")
    try:
        found = SimpleCookie(text).get(_name(scope["scheme"], name))
    except CookieError:
        return ""
    return "" if found is None else found.value


def set_cookie(answer: Response, request: Request, name: str, value: str, lasts_s: int) -> None:
    """Have a browser keep a cookie."""
    scheme = request.url.scheme
    answer.set_cookie(
        _name(scheme, name), value, max_age=lasts_s, path="/", secure=scheme == "https", httponly=True, samesite="lax"
    )


def unset_cookie(answer: Response, request: Request, name: str) -> None:
    """Have a browser forget a cookie."""
    scheme = request.url.scheme
    answer.delete_cookie(_name(scheme, name), path="/", secure=scheme == "https", httponly=True, samesite="lax")
