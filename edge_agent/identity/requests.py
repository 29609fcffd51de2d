"""The device's key and its certificate request. Needs the library cryptography, which serving does without."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edge_agent.identity.store import IdentityError
from edgeloop.whole_files import write_whole


def ensure_key(file: Path) -> None:
    """Make a key (EC P-256), unless there is one.

    Raises:
        OSError: it cannot be written.
    """
    if file.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(file, pem)


def make_request(key_file: Path, name: str) -> bytes:
    """A certificate request of a key, PEM.

    Raises:
        IdentityError: the key cannot be read here; a TPM's, say, whose owner makes the request with other means.
    """
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise IdentityError(
            f"{key_file} cannot be read as a key ({error}); bring a request of it with --request"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise IdentityError(f"{key_file} has to be a key on an elliptic curve, or of RSA")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def validity(chain: bytes, request: bytes) -> tuple[float, float]:
    """Begin and end of a certificate that came for a request, unix seconds.

    Raises:
        IdentityError: it is none, or of another key.
    """
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        asked = x509.load_pem_x509_csr(request)
    except ValueError as error:
        raise IdentityError(f"the hub sent what is no certificate: {error}") from error
    if _public(leaf) != _public(asked):
        raise IdentityError("the hub sent a certificate of another key")
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def begin_of(certificates: bytes) -> float:
    """The latest begin of some certificates, PEM, unix seconds; raises `IdentityError`."""
    try:
        return max(one.not_valid_before_utc.timestamp() for one in x509.load_pem_x509_certificates(certificates))
    except ValueError as error:
        raise IdentityError(f"the hub sent what are no certificates: {error}") from error


def _public(one: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return one.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
