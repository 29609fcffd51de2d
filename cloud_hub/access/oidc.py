"""OpenID Connect: tokens of an identity provider, verified against the keys that it publishes.

What is believed: a signature by one of the issuer's keys with an asymmetric algorithm of this list, whatever the
token's header says; the issuer, the audience and the times in it; and which roles its claims name. Nothing that a token
refers to is fetched: keys come from the issuer's own address alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cloud_hub.access.errors import NotBelieved, ProviderError
from cloud_hub.access.grants import Grant
from cloud_hub.access.principals import Principal, Role

log = logging.getLogger(__name__)

#: No algorithm with a shared secret: its key could be the public one. No ``none``.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
#: How far two clocks may be apart, seconds.
LEEWAY_S = 60
#: Keys are read again after this long, and when a token names one that is not among them, but not more often than that.
KEYS_LAST_S, KEYS_AGAIN_S = 3600.0, 30.0
TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20
_LONGEST_TOKEN, _LONGEST_SUBJECT = 16_384, 200
SCOPE = "openid profile email"


@dataclass(frozen=True)
class Client:
    """How this hub is known to its identity provider.

    Attributes:
        issuer: its address, as tokens name it.
        client_id: this hub's name there.
        client_secret: its secret, or None for a client without one.
        audience: whom tokens of programs have to be for.
        claim: where roles are; dots lead into it (``realm_access.roles``).
        grants: value of the claim → what it stands for; empty: the names of the roles themselves.
    """

    issuer: str
    client_id: str
    client_secret: str | None
    audience: str
    claim: str
    grants: Mapping[str, Grant]


class Provider:
    """An identity provider.

    Args:
        client: how this hub is known there.
        clock: unix seconds.
    """

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.time) -> None:
        self.client, self._clock = client, clock
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = 0.0

    def known(self, token: str) -> Principal:
        """Whoever a program's token is about.

        Raises:
            NotBelieved: nobody that this hub knows.
            ProviderError: the keys cannot be read.
        """
        return self.principal(self.claims(token, self.client.audience))

    def claims(self, token: str, audience: str, nonce: str | None = None) -> Mapping[str, Any]:
        """What a token says, once it is believed; errors as for `known`."""
        if len(token) > _LONGEST_TOKEN:
            raise NotBelieved("it is too long")
        claims = self._signed(token)
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.client.issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise NotBelieved(f"its claims do not hold: {error.error}") from error
        if nonce is not None and claims.get("nonce") != nonce:
            raise NotBelieved("it was made for another sign-in")
        return claims

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Whom claims are about; raises `NotBelieved` where they name no role of this hub.

        Somebody with several roles has the strongest, and those of the same limits: limits of one role never stand for
        another.
        """
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise NotBelieved("its subject is none")
        grants = [grant for value in _values(claims, self.client.claim) if (grant := self._grant(value))]
        if not grants:
            raise NotBelieved(f"its claim {self.client.claim} names no role here")
        strongest = max(grants, key=lambda grant: list(Role).index(grant.role))
        same = [g for g in grants if (g.channels, g.models) == (strongest.channels, strongest.models)]
        display = next((claims[name] for name in ("preferred_username", "email", "name") if claims.get(name)), "")
        return Principal(
            "person",
            subject,
            frozenset(grant.role for grant in same),
            strongest.channels,
            strongest.models,
            display=str(display)[:_LONGEST_SUBJECT],
        )

    def endpoint(self, name: str) -> str:
        """An address from the issuer's own description; raises `ProviderError`."""
        with self._lock:
            if not self._metadata:
                self._metadata = self._describe()
            found = self._metadata.get(name)
        if not isinstance(found, str):
            raise ProviderError(f"the issuer {self.client.issuer} has no {name}")
        return found

    def _grant(self, value: str) -> Grant | None:
        if self.client.grants:
            return self.client.grants.get(value)
        return Grant(Role(value)) if value in list(Role) else None

    def _signed(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature holds; the keys are read again where it names one that is not there."""
        for again in (False, True):
            try:
                return dict(jwt.decode(token, self._key_set(again), algorithms=ALGORITHMS).claims)
            except (JoseError, ValueError, TypeError, KeyError) as error:
                if again or not self._may_read_again():
                    raise NotBelieved("its signature is not one of the issuer's") from error
        raise AssertionError("unreachable")

    def _may_read_again(self) -> bool:
        with self._lock:
            return self._clock() - self._read_at >= KEYS_AGAIN_S

    def _key_set(self, again: bool) -> KeySet:
        with self._lock:
            if self._keys is None or again or self._clock() - self._read_at > KEYS_LAST_S:
                try:
                    metadata = self._describe()
                    keys = KeySet.import_key_set(cast(Any, self._read(str(metadata.get("jwks_uri")))))
                except (ProviderError, JoseError, ValueError, TypeError, KeyError) as error:
                    self._read_at = self._clock()  # not more often than that either
                    if self._keys is None:
                        raise ProviderError(f"the keys of {self.client.issuer} cannot be read: {error}") from error
                    log.warning("the keys of %s cannot be read again: %s", self.client.issuer, error)
                else:
                    self._metadata, self._keys, self._read_at = metadata, keys, self._clock()
            return self._keys

    def _describe(self) -> dict[str, Any]:
        found = self._read(self.client.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self.client.issuer:
            raise ProviderError(f"{self.client.issuer} calls itself {found.get('issuer')!r:.200}")
        secure = self.client.issuer.startswith("https://")
        for name in ("jwks_uri", "authorization_endpoint", "token_endpoint"):
            if secure and not str(found.get(name, "https://")).startswith("https://"):
                raise ProviderError(f"its {name} is not https")
        return found

    def _read(self, url: str) -> dict[str, Any]:
        try:
            with httpx.stream("GET", url, timeout=TIMEOUT_S) as answer:
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise ProviderError(f"{url} answers with more than {MOST_BYTES} bytes")
                if answer.status_code != 200:
                    raise ProviderError(f"{url} answers {answer.status_code}")
                found = httpx.Response(200, content=bytes(body)).json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProviderError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
        if not isinstance(found, dict):
            raise ProviderError(f"{url} answers with no JSON object")
        return found


def _values(claims: Mapping[str, Any], path: str) -> Sequence[str]:
    """The strings at a path of claims: a list of them, or one with spaces between."""
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found.split()
    return [value for value in found if isinstance(value, str)] if isinstance(found, list) else []
