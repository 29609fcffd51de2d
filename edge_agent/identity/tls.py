"""TLS as this device speaks it: its own certificate, its fleet's authority alone, and a clock that may be wrong."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.identity.store import Identity, IdentityError

#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for.
NO_CHECK_TIME = 0x200000


def tls_context(identity: Identity, now: float | None = None) -> ssl.SSLContext:
    """A context for the hub and its broker.

    After a power loss a device without a clock of its own is in 1970, and no certificate is valid yet. So the times of
    certificates are judged only when the clock is not before the begin of the device's own one.

    Args:
        identity: of this device.
        now: unix seconds; None: by its clock.

    Raises:
        IdentityError: a file is missing or damaged.
    """
    return _context(
        identity.ca,
        identity.certificate,
        identity.key,
        judge_times=identity.plausible(time.time() if now is None else now),
    )


def _context(ca: Path, certificate: Path | None, key: Path | None, *, judge_times: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not judge_times:
        context.verify_flags |= NO_CHECK_TIME
    try:
        context.load_verify_locations(ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise IdentityError(
            f"{ca}, {certificate} and {key} cannot be used for TLS ({error}); restore them, or enrol this device again"
        ) from error
    return context


class TlsOf:
    """Gives the context for the next connection: a renewed certificate and a clock that was set are seen by it.

    Args:
        identity: of this device.
        clock: unix seconds.
    """

    def __init__(self, identity: Identity, clock: Callable[[], float] = time.time) -> None:
        self._identity, self._clock = identity, clock
        self._made: tuple[tuple[bool, int, int], ssl.SSLContext] | None = None

    def __call__(self) -> ssl.SSLContext:
        """The context now; raises `IdentityError`."""
        identity, now = self._identity, self._clock()
        try:
            state = (
                identity.plausible(now),
                identity.certificate.stat().st_mtime_ns,
                identity.ca.stat().st_mtime_ns,
            )
        except OSError as error:
            raise IdentityError(f"{error.filename} cannot be read: {error.strerror}") from error
        if self._made is None or self._made[0] != state:
            self._made = state, tls_context(identity, now)
        return self._made[1]


class GivenTls:
    """The context of a broker that is not the hub's, from files that the settings name.

    Args:
        ca: certificates by which it is known.
        certificate: that this device shows, or None.
        key: of that, or None.
    """

    def __init__(self, ca: Path, certificate: Path | None, key: Path | None) -> None:
        self._files = ca, certificate, key

    def __call__(self) -> ssl.SSLContext:
        """The context; raises `IdentityError`. The files are read again: somebody else renews them."""
        return _context(*self._files, judge_times=True)
