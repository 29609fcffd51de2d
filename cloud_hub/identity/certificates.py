"""Certificates of a fleet: what is in them, and which requests are taken. Values in, values out.

Three uses, which no certificate mixes: a device's (client, its name is the device's), the hub's own at its broker
(client, ``hub:<fleet>``: a colon is in no device's name) and a server's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_hub.errors import BadRequest

Use = Literal["device", "hub", "server"]
#: A certificate is valid from a little before it is made: clocks of hub and broker differ, a device's more so.
BACKDATE = timedelta(minutes=10)
#: The CA's own: devices that are replaced after ten years are enrolled anew.
CA_DAYS = 3650
MAX_REQUEST_BYTES = 8192
_SMALLEST_RSA = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1)


def hub_name(fleet: str) -> str:
    """The name of the hub's own client at the broker; no device can have it."""
    return f"hub:{fleet}"


def observer_name(fleet: str) -> str:
    """The name of who may read everything at the broker, and write nothing; no device can have it."""
    return f"observer:{fleet}"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as it is stored; the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A stored private key; raises ValueError when it is none of ours."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no key on an elliptic curve")
    return key


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """Certificates one after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """A certificate request, whose sender has the key that it is about.

    Raises:
        BadRequest: it is none, its signature is wrong, or its key is weak.
    """
    if len(pem) > MAX_REQUEST_BYTES:
        raise BadRequest(f"the certificate request has {len(pem):,} bytes; {MAX_REQUEST_BYTES:,} are enough for any")
    try:
        request = x509.load_pem_x509_csr(pem)
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError) as error:
        raise BadRequest("the certificate request is no PEM of PKCS#10") from error
    if not signed:
        raise BadRequest("the certificate request is not signed by its own key")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return request
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SMALLEST_RSA:
        return request
    raise BadRequest(f"the key has to be on P-256 or P-384, or RSA with {_SMALLEST_RSA} bits or more")


def make_request(key: ec.EllipticCurvePrivateKey, name: str, hosts: Iterable[str] = ()) -> bytes:
    """A certificate request for one of the hub's own keys, PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    if alternatives := _alternatives(hosts):
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key_bytes(one: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The public key, DER: two with the same bytes are of the same private key."""
    return one.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def name_of(certificate: x509.Certificate) -> str:
    """The one common name, or "" where there is none, or several."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def new_ca(key: ec.EllipticCurvePrivateKey, fleet: str, now: datetime) -> x509.Certificate:
    """A certificate authority that signs itself and no other authority."""
    subject = _subject(f"edgeloop CA {fleet}")
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(own, critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def sign(
    request: x509.CertificateSigningRequest,
    name: str,
    use: Use,
    hosts: Iterable[str],
    until: datetime,
    *,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """A certificate for the key of a request. Nothing but the key is taken from the request.

    Args:
        request: checked.
        name: the common name.
        use: what it may be used for.
        hosts: names and addresses that a server answers to; empty for clients.
        until: its end.
        ca: who issues it.
        key: of ``ca``.
        now: its begin.
    """
    usage = ExtendedKeyUsageOID.SERVER_AUTH if use == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(ca.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(until, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if alternatives := _alternatives(hosts):
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256())


def new_crl(
    serials: Iterable[tuple[int, float]], *, ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: datetime
) -> bytes:
    """The list of revoked certificates, PEM; it holds as long as the CA.

    It lies beside the broker that reads it, so an early end would protect from nothing, and lock the fleet out when a
    hub that should have renewed it was away.

    Args:
        serials: serial number and unix seconds of each.
        ca: whose certificates they are.
        key: of ``ca``.
        now: when it is made.
    """
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    builder = builder.last_update(now - BACKDATE).next_update(ca.not_valid_after_utc)
    for serial, at in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(revoked.revocation_date(utc(at)).build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def utc(seconds: float) -> datetime:
    """Unix seconds as certificates have them."""
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternatives(hosts: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return found


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
