"""Devices that ask for certificates, without an agent: a key and a request each, and HTTP with what they get."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloud_hub.identity.certificates import key_pem, make_request, new_key


@dataclass
class Applicant:
    """A device before, and after, its enrolment."""

    name: str
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = new_key()
        self.key, self.certificate = self.folder / "device.key", self.folder / "device.crt"
        self.key.write_bytes(key_pem(self._key))

    def request(self, name: str = "") -> str:
        """A certificate request; ``name`` is what its subject claims."""
        return make_request(self._key, name or self.name).decode()

    def body(self, token: str, **other: Any) -> dict[str, Any]:
        """What it sends to redeem a token."""
        return {"token": token, "device": self.name, "request": self.request(), **other}

    def keep(self, chain: str) -> x509.Certificate:
        """Keep a certificate; returns it."""
        self.certificate.write_text(chain)
        return x509.load_pem_x509_certificates(chain.encode())[0]

    def context(self, trust: bytes) -> ssl.SSLContext:
        """TLS with its certificate."""
        context = ssl.create_default_context(cadata=trust.decode())
        context.load_cert_chain(self.certificate, self.key)
        return context

    def http(self, base_url: str, trust: bytes) -> httpx.Client:
        """HTTPS with its certificate."""
        return httpx.Client(base_url=base_url, verify=self.context(trust), timeout=30.0)


def weak_request() -> str:
    """A request of an RSA key that is too short."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
