"""From what a request shows to who asks, and the refusals on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_hub.access.errors import NotBelieved, ProviderError
from cloud_hub.access.local import LocalKey
from cloud_hub.access.patience import Lockout, Rate, network
from cloud_hub.access.principals import ANONYMOUS, DEVELOPMENT, LOCAL, Principal
from cloud_hub.access.sessions import Sessions
from cloud_hub.access.tokens import PREFIX, Tokens
from cloud_hub.errors import Forbidden
from cloud_hub.records.database import Database

if TYPE_CHECKING:
    from cloud_hub.access.oidc import Provider

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What a request shows of who asks.

    Attributes:
        address: of the caller, as far as the network tells.
        authorization: the header, or "".
        session: the cookie of somebody who signed in, or "".
        certificate: the client certificate that the TLS layer has verified, DER, or None.
        renewing: whether it is shown to get the next one, for which one that ended a short while ago will do.
    """

    address: str
    authorization: str = ""
    session: str = ""
    certificate: bytes | None = None
    renewing: bool = False


class Refused(Exception):
    """A request that is answered without being looked at any further.

    Args:
        status: of HTTP.
        error: what is wrong.
        hint: what to do about it.
        retry_after_s: seconds after which it may be tried again; 0 where that helps nothing.
    """

    def __init__(self, status: int, error: str, hint: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(error)
        self.status, self.hint, self.retry_after_s = status, hint, retry_after_s


class Access:
    """Who asks a hub.

    Args:
        db: the records.
        data: the data folder, which holds the local secret.
        secure: whether anybody is asked; else everybody may do everything, as the principal ``development``.
        rate: requests of one principal, or of one unknown address, in a second; 0 for any.
        provider: the identity provider, where there is one.
        session_s: seconds that somebody who signed in may stay.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        data: Path,
        *,
        secure: bool,
        rate: float,
        provider: Provider | None = None,
        session_s: float = 28_800.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.open = not secure
        self.tokens = Tokens(db, clock=clock)
        self.sessions = Sessions(db, session_s, clock=clock)
        self.provider = provider
        self.local = LocalKey(data)
        self.lockout = Lockout()
        #: Names the device of a certificate, or raises `Forbidden`; None where nobody has one.
        self.recognise: Callable[[bytes, bool], str] | None = None
        self._rate = Rate(0.0 if self.open else rate)

    def principal(self, shown: Shown) -> Principal:
        """Who asks.

        Raises:
            Refused: the credentials are wrong, or there were too many requests or guesses.
        """
        if self.open:
            return DEVELOPMENT
        principal = self._known(shown)
        caller = str(principal) if principal is not ANONYMOUS else network(shown.address)
        if wait_s := self._rate.wait_s(caller):
            raise Refused(429, "too many requests", "ask more slowly", retry_after_s=wait_s)
        return principal

    def guessed(self, address: str) -> None:
        """A handler found a secret in a request's body wrong."""
        self.lockout.wrong(address)

    def check_patience(self, address: str, credential: str = "") -> None:
        """Raise `Refused` while an address has to wait because of its guesses."""
        if wait_s := self.lockout.wait_s(address, credential):
            raise Refused(429, "too many wrong credentials came from this address", "wait", retry_after_s=wait_s)

    def _known(self, shown: Shown) -> Principal:
        if shown.authorization:
            return self._bearer(shown)
        if shown.certificate is not None and self.recognise is not None:
            try:
                return Principal("device", self.recognise(shown.certificate, shown.renewing))
            except Forbidden as error:
                raise Refused(403, str(error), error.hint) from error
        if shown.session and (person := self.sessions.known(shown.session)) is not None:
            return person
        return ANONYMOUS

    def _bearer(self, shown: Shown) -> Principal:
        scheme, _, credential = shown.authorization.partition(" ")
        credential = credential.strip()
        self.check_patience(shown.address, credential)
        found = self._holder(credential) if scheme.lower() == "bearer" else None
        if found is None:
            self.lockout.wrong(shown.address)
            raise Refused(
                401,
                "the credentials are not valid: unknown, expired or revoked",
                "send Authorization: Bearer with a token that is valid; cloud-hub tokens create makes one",
            )
        self.lockout.right(credential)
        return found

    def _holder(self, credential: str) -> Principal | None:
        if credential.startswith(PREFIX):
            return LOCAL if self.local.is_this(credential) else self.tokens.known(credential)
        if self.provider is None or credential.count(".") != 2:
            return None
        try:
            return self.provider.known(credential)
        except NotBelieved as error:
            log.info("a token of the identity provider is not believed: %s", error)
            return None
        except ProviderError as error:
            log.warning("%s", error)
            raise Refused(
                503, "the identity provider cannot be asked now", "see the hub's log; its own tokens work without it"
            ) from error
