"""``/api/v1/sign-in``: people come in by the organisation's identity provider, and get a session of a few hours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from cloud_hub.access import sign_in
from cloud_hub.access.errors import NotBelieved, ProviderError
from cloud_hub.access.sign_in import Begun
from cloud_hub.api.cookies import SESSION, SIGN_IN, read_cookie, set_cookie, unset_cookie
from cloud_hub.api.errors import answers, problem, responses
from cloud_hub.errors import NotFound

if TYPE_CHECKING:
    from cloud_hub.access.oidc import Provider
    from cloud_hub.app import Hub

log = logging.getLogger(__name__)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: answers("The identity provider's answer is not believed."),
    502: answers("The identity provider cannot be asked."),
}
#: Where somebody lands who has signed in.
_NEXT = "/docs"


def router(hub: Hub) -> APIRouter:
    """The addresses of signing in and out."""
    routes = APIRouter(tags=["access"])

    def provider() -> Provider:
        if hub.access.provider is None:
            raise NotFound("this hub has no identity provider", "set oidc_issuer, or use a token")
        return hub.access.provider

    def back() -> str:
        return f"{hub.addresses.public_url}/api/v1/sign-in/callback"

    @routes.get(
        "/sign-in",
        status_code=302,
        response_class=Response,
        responses={**responses(NotFound), 502: _REFUSALS[502]},
    )
    def begin(request: Request) -> Response:
        """Go to the identity provider."""
        try:
            url, begun = sign_in.begin(provider(), back())
        except ProviderError as error:
            return _unreachable(error)
        answer = RedirectResponse(url, status_code=302)
        set_cookie(answer, request, SIGN_IN, begun.to_cookie(), sign_in.PATIENCE_S)
        return answer

    @routes.get(
        "/sign-in/callback",
        status_code=302,
        response_class=Response,
        responses={**responses(NotFound), **_REFUSALS},
    )
    def finish(
        request: Request,
        state: Annotated[str, Query(max_length=1000)] = "",
        code: Annotated[str, Query(max_length=10_000)] = "",
    ) -> Response:
        """Come back from the identity provider, with a session."""
        own = provider()
        try:
            begun = Begun.from_cookie(read_cookie(request.scope, SIGN_IN))
            who = sign_in.finish(own, back(), begun, state=state, code=code)
        except NotBelieved as error:
            return problem(401, f"nobody is signed in: {error}", "begin again at /api/v1/sign-in")
        except ProviderError as error:
            return _unreachable(error)
        answer = RedirectResponse(_NEXT, status_code=302)
        set_cookie(answer, request, SESSION, hub.access.sessions.begin(who), int(hub.access.sessions.lasts_s))
        unset_cookie(answer, request, SIGN_IN)
        return answer

    @routes.post("/sign-out", status_code=204, response_class=Response)
    def end(request: Request) -> Response:
        """End the session of this browser."""
        if secret := read_cookie(request.scope, SESSION):
            hub.access.sessions.end(secret)
        answer = Response(status_code=204)
        unset_cookie(answer, request, SESSION)
        return answer

    return routes


def _unreachable(error: ProviderError) -> Response:
    log.warning("nobody can sign in: %s", error)
    return problem(502, "the identity provider cannot be asked now", "see the hub's log; a token works without it")
