"""Keys of people: ``NAME.key`` with the private half, ``NAME.pub`` with the public half.

A key that a device or a service keeps has a ``.pub`` alone, with the signer's URI.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key, Signer

from edgeloop.protocol import ProtocolError, check_name
from edgeloop.trust import keys
from edgeloop.trust.errors import TrustError
from model_export.errors import DestinationError, ExportError, KeyFileError
from model_export.trust import passphrases

PRIVATE, PUBLIC = ".key", ".pub"


@dataclass(frozen=True)
class PublicKey:
    """The public half of somebody's key.

    Attributes:
        name: what people call it.
        key: as metadata hold it.
        uri: where a device or a service keeps the private half; "" for a file.
    """

    name: str
    key: Key
    uri: str = ""

    @property
    def keyid(self) -> str:
        """Its id, 64 hex digits."""
        return str(self.key.keyid)


def create(place: Path, *, encrypted: bool = True) -> PublicKey:
    """Make a key: ``place.key`` and ``place.pub``.

    Raises:
        DestinationError: one of them is there, or cannot be written.
        KeyFileError: no passphrase, or a name that others would not read.
    """
    _require_new(place)
    signer = keys.generate()
    pem = keys.to_pem(signer, passphrases.passphrase(place.name, new=True) if encrypted else None)
    public = PublicKey(place.name, signer.public_key)
    _write_new(place.with_name(place.name + PRIVATE), pem, 0o600)
    write_public(place.with_name(place.name + PUBLIC), public)
    return public


def from_signer(place: Path, uri: str, public_pem: Path) -> PublicKey:
    """Note a key that a device or a service keeps: ``place.pub``, after a signature to see that it is the right one.

    Args:
        place: without the suffix.
        uri: as securesystemslib knows it: ``hsm:…``, ``awskms:…``, ``gcpkms:…``, ``azurekms:…``, ``hv:…``.
        public_pem: the public half as PEM.

    Raises:
        DestinationError: the file is there, or cannot be written.
        KeyFileError: the key cannot be used.
    """
    _require_new(place)
    with key_errors(public_pem):
        public = PublicKey(place.name, keys.public_from_pem(_read(public_pem)), uri)
    signer = _signer(public, public_pem)
    try:
        public.key.verify_signature(signer.sign(b"edgeloop"), b"edgeloop")
    except Exception as error:  # each signer raises errors of its own library
        raise KeyFileError(f"{uri} does not sign for the key in {public_pem}: {error}", "check both") from error
    write_public(place.with_name(place.name + PUBLIC), public)
    return public


def read_public(path: Path) -> PublicKey:
    """Read a ``.pub``, or a public key in PEM.

    Raises:
        KeyFileError: it is neither.
    """
    data = _read(path)
    with key_errors(path):
        if _is_private(data):
            raise KeyFileError(
                f"{path} holds a private key", f"give the file {path.stem}{PUBLIC} that was made with it"
            )
        if not _is_json(data):
            return PublicKey(re.sub("[^A-Za-z0-9_.-]", "_", path.stem)[:64], keys.public_from_pem(data))
        try:
            document = json.loads(data)
            # A name comes from somebody else, and becomes part of a path and of what people read.
            name, uri = check_name(document.get("name", path.stem)), document.get("uri", "")
        except (ValueError, AttributeError) as error:
            raise TrustError(f"it is no public key: {error}") from error
        return PublicKey(name, keys.from_document(document), str(uri))


def write_public(path: Path, public: PublicKey) -> None:
    """Write a ``.pub``; raises DestinationError where something is."""
    document = {"name": public.name, **keys.to_document(public.key)}
    if public.uri:
        document["uri"] = public.uri
    _write_new(path, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n", 0o644)


def open_signer(path: Path) -> Signer:
    """Open a key to sign with: a ``.key``, or the ``.pub`` of a device or a service.

    Raises:
        KeyFileError: it cannot be read, its passphrase is wrong, or its signer cannot be reached.
    """
    data = _read(path)
    if _is_private(data):
        secret = passphrases.passphrase(path.stem) if keys.is_encrypted(data) else None
        with key_errors(path):
            return keys.from_pem(data, secret)
    public = read_public(path)
    if not public.uri:
        raise KeyFileError(f"{path} holds the public half alone", f"sign with {path.with_suffix(PRIVATE)}")
    return _signer(public, path)


@contextmanager
def key_errors(path: Path) -> Iterator[None]:
    """What the library refuses of a key becomes an error of this tool that names the file."""
    try:
        yield
    except TrustError as error:
        raise KeyFileError(f"{path}: {error}") from error


def _is_json(data: bytes) -> bool:
    return data.lstrip().startswith(b"{")


def _is_private(data: bytes) -> bool:
    return b"PRIVATE KEY" in data and not _is_json(data)


def _signer(public: PublicKey, path: Path) -> Signer:
    with key_errors(path):
        return keys.from_uri(public.uri, public.key, passphrases.pin)


def _require_new(place: Path) -> None:
    try:
        check_name(place.name, "name of the key")
    except ProtocolError as error:
        raise KeyFileError(str(error)) from error
    for suffix in (PRIVATE, PUBLIC):
        if (path := place.with_name(place.name + suffix)).exists():
            raise _taken(path)


def _taken(path: Path) -> ExportError:
    return DestinationError(f"{path} is there already", "a key is never written over; choose another name")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
