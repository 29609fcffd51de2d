"""Keys: made, kept in a file, and told to others by their public half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from edgeloop.trust.errors import TrustError

_FIELDS = ("keyid", "keytype", "scheme", "keyval")


def generate() -> CryptoSigner:
    """A new ed25519 key."""
    return CryptoSigner.generate_ed25519()


def to_pem(signer: CryptoSigner, passphrase: bytes | None) -> bytes:
    """The private half as PKCS8 in PEM, encrypted unless ``passphrase`` is None."""
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    plain = load_pem_private_key(signer.private_bytes, None)
    return plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def is_encrypted(pem: bytes) -> bool:
    """Whether a private key in PEM needs a passphrase."""
    return b"ENCRYPTED" in pem


def from_pem(pem: bytes, passphrase: bytes | None = None) -> CryptoSigner:
    """Read a private key: ed25519, ECDSA on a NIST curve, or RSA.

    Raises:
        TrustError: it is none, or the passphrase is wrong or missing.
    """
    try:
        return CryptoSigner(load_pem_private_key(pem, passphrase))
    except TypeError as error:
        raise TrustError(
            "the private key is encrypted, and no passphrase was given"
            if is_encrypted(pem)
            else "the private key is not encrypted, and a passphrase was given"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "the passphrase is wrong, or the file is damaged" if is_encrypted(pem) else "no private key that signs"
        raise TrustError(f"the private key cannot be read: {why}") from error


def public_from_pem(pem: bytes) -> Key:
    """Read a public key in PEM; raises TrustError."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(f"no public key in PEM that signatures can be checked with: {error}") from error


def from_uri(uri: str, key: Key, ask: Any = None) -> Signer:
    """The signer that a securesystemslib URI names: ``hsm:…``, ``awskms:…`` or others.

    Args:
        uri: where the private half is.
        key: the public half.
        ask: called with the name of a secret (a PIN) that the signer needs; returns it.

    Raises:
        TrustError: the scheme is unknown, its library is not installed, or the key is not there.
    """
    try:
        return Signer.from_priv_key_uri(uri, key, ask)
    except Exception as error:  # each signer raises errors of its own library
        scheme = uri.partition(":")[0]
        raise TrustError(f"the signer {scheme}: of key {key.keyid[:8]} cannot be used: {error}") from error


def to_document(key: Key) -> dict[str, Any]:
    """The public half as JSON values: ``keyid``, ``keytype``, ``scheme``, ``keyval``."""
    return {"keyid": key.keyid, **key.to_dict()}


def from_document(document: Mapping[str, Any]) -> Key:
    """Read what `to_document` wrote; other fields are ignored.

    Raises:
        TrustError: fields are missing or wrong, or the id is not the key's own.
    """
    try:
        found = {name: document[name] for name in _FIELDS}
        key = Key.from_dict(str(found.pop("keyid")), found)
    except (KeyError, TypeError, ValueError) as error:
        raise TrustError(f"no public key: it has to have {', '.join(_FIELDS)}") from error
    check(key)
    return key


def check(key: Key) -> None:
    """A key's id has to be its own, or one key could count as two towards a threshold.

    Raises:
        TrustError: it is not, or the key is of a kind that signatures cannot be checked with.
    """
    if not isinstance(key, SSlibKey) or key.unrecognized_fields:
        raise TrustError(f"the key {key.keyid[:16]!r} is of an unknown kind")
    try:
        own = SSlibKey.from_crypto(key._crypto_key(), scheme=key.scheme)
    except Exception as error:  # what a hostile public key makes of its parsers
        raise TrustError(f"the key {key.keyid[:16]!r} cannot be read") from error
    if own != key:
        raise TrustError(f"the key {key.keyid[:16]!r} calls itself by another's id; its own is {own.keyid[:16]}")


def check_role(role: str, keys: Sequence[Key], threshold: int) -> None:
    """A role's keys have to be readable, different, and as many as the signatures that it needs; raises TrustError."""
    for key in keys:
        check(key)
    if len({str(key.keyval["public"]) for key in keys}) != len(keys):
        raise TrustError(f"{role} has a key twice; it would count as two signatures")
    if type(threshold) is not int or not 1 <= threshold <= len(keys):
        raise TrustError(f"{role} needs {threshold} signatures and has {len(keys)} keys")
