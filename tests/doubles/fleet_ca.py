"""A fleet's certificates without a hub: whoever a test needs gets one, also those whom no hub would give one."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from cloud_hub.identity.certificates import Use, certificate_pem, key_pem, make_request, new_ca, new_crl, new_key, sign


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, in files."""

    name: str
    certificate: Path
    key: Path
    serial: int


class FleetCA:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, fleet: str = "test") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = new_key()
        self._ca = new_ca(self._key, fleet, datetime.now(UTC))
        self.file = folder / "ca.crt"
        self.file.write_bytes(certificate_pem(self._ca))
        self._count = 0

    def issue(
        self, name: str, use: Use = "device", *, days: float = 30.0, begins: datetime | None = None
    ) -> Credentials:
        """A certificate for a fresh key."""
        self._count += 1
        key, begins = new_key(), begins or datetime.now(UTC)
        hosts = ("localhost", "127.0.0.1") if use == "server" else ()
        request = x509.load_pem_x509_csr(make_request(key, name, hosts))
        until = begins + timedelta(days=days)
        signed = sign(request, name, use, hosts, until, ca=self._ca, key=self._key, now=begins)
        certificate, file = self.folder / f"{self._count}.crt", self.folder / f"{self._count}.key"
        certificate.write_bytes(certificate_pem(signed))
        file.write_bytes(key_pem(key))
        return Credentials(name, certificate, file, signed.serial_number)

    def revoke(self, file: Path, *revoked: Credentials) -> None:
        """Write the list of revoked certificates."""
        now = datetime.now(UTC)
        serials = [(one.serial, now.timestamp()) for one in revoked]
        file.write_bytes(new_crl(serials, ca=self._ca, key=self._key, now=now))

    def context(self, who: Credentials | None) -> ssl.SSLContext:
        """TLS of a client that trusts this authority, with or without a certificate of whichever."""
        context = ssl.create_default_context(cafile=str(self.file))
        if who is not None:
            context.load_cert_chain(who.certificate, who.key)
        return context
