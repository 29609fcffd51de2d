"""Signing in with a browser: authorization code and PKCE, as RFC 6749, RFC 7636 and OpenID Connect Core have it.

What has to be remembered between the two visits is kept in a cookie of the browser that began: whoever is sent a link
to the second half has no such cookie, so nobody is signed in as somebody else.
"""

from __future__ import annotations

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cloud_hub.access.errors import NotBelieved, ProviderError
from cloud_hub.access.principals import Principal

if TYPE_CHECKING:
    from cloud_hub.access.oidc import Provider

#: How long somebody may take at the identity provider, seconds.
PATIENCE_S = 600


@dataclass(frozen=True)
class Begun:
    """The first half of a sign-in, as the browser's cookie keeps it."""

    state: str
    nonce: str
    verifier: str

    def to_cookie(self) -> str:
        """As a cookie's value."""
        return urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def from_cookie(cls, value: str) -> Begun:
        """Read it; raises `NotBelieved`."""
        try:
            found = json.loads(urlsafe_b64decode(value.encode()))
            return cls(**{name: str(found[name]) for name in ("state", "nonce", "verifier")})
        except (ValueError, KeyError, TypeError) as error:
            raise NotBelieved("this browser did not begin to sign in, or began too long ago") from error


def begin(provider: Provider, redirect_uri: str) -> tuple[str, Begun]:
    """The address at the identity provider to send a browser to, and what to remember.

    Raises:
        ProviderError: it cannot be asked.
    """
    begun = Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64))
    url, _ = _client(provider, redirect_uri).create_authorization_url(
        provider.endpoint("authorization_endpoint"),
        state=begun.state,
        nonce=begun.nonce,
        code_verifier=begun.verifier,
    )
    return str(url), begun


def finish(provider: Provider, redirect_uri: str, begun: Begun, *, state: str, code: str) -> Principal:
    """Who came back from the identity provider.

    Raises:
        NotBelieved: it was not this browser that began, or the provider's token is not what it has to be.
        ProviderError: the provider refuses the code, or cannot be asked.
    """
    if not hmac.compare_digest(begun.state.encode(), state.encode()):
        raise NotBelieved("this browser began another sign-in")
    from authlib.common.errors import AuthlibBaseError
    from httpx import HTTPError

    try:
        with _client(provider, redirect_uri) as client:
            answer = client.fetch_token(
                provider.endpoint("token_endpoint"),
                code=code,
                code_verifier=begun.verifier,
                grant_type="authorization_code",
            )
    except (AuthlibBaseError, HTTPError, ValueError) as error:
        raise ProviderError(f"the identity provider did not take the code: {type(error).__name__}") from error
    claims = provider.claims(str(answer.get("id_token", "")), provider.client.client_id, begun.nonce)
    return provider.principal(claims)


def _client(provider: Provider, redirect_uri: str) -> Any:
    from authlib.integrations.httpx_client import OAuth2Client

    from cloud_hub.access.oidc import SCOPE, TIMEOUT_S

    own = provider.client
    return OAuth2Client(
        own.client_id,
        own.client_secret,
        token_endpoint_auth_method="client_secret_basic" if own.client_secret else "none",
        redirect_uri=redirect_uri,
        scope=SCOPE,
        code_challenge_method="S256",
        timeout=TIMEOUT_S,
    )
