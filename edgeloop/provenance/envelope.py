"""The DSSE envelope around a statement: who has signed it.

https://github.com/secure-systems-lab/dsse: the signatures are over the payload's type and its very bytes, so nothing
has to be parsed before it is known who wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error
from securesystemslib.signer import Key, Signer

from edgeloop.package.documents import canonical_json, read_json
from edgeloop.package.errors import PackageError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: Bytes of an envelope, a statement or a bill of materials. A build of scikit-learn and PyTorch has 60 KB.
MAX_BYTES = 4 << 20
MAX_SIGNATURES = 16


class ProvenanceError(ValueError):
    """A provenance that cannot be read, is not signed by whom it should be, or is about something else."""


def unsigned(payload: bytes) -> bytes:
    """An envelope that waits for its first signature."""
    return _bytes(Envelope(payload, PAYLOAD_TYPE, {}))


def sign(envelope: bytes, signer: Signer) -> bytes:
    """The envelope with one more signature; the same where the key has signed already.

    Raises:
        ProvenanceError: it is no envelope.
    """
    found = read(envelope)
    if signer.public_key.keyid not in found.signatures:
        found.sign(signer)
    return _bytes(found)


def read(envelope: bytes) -> Envelope:
    """Read an envelope from outside, without checking signatures.

    Raises:
        ProvenanceError: it is none of a statement.
    """
    try:
        raw = read_json(envelope, "the provenance", max_bytes=MAX_BYTES)
        if len(raw["signatures"]) > MAX_SIGNATURES:
            raise ValueError(f"{len(raw['signatures'])} signatures; at most {MAX_SIGNATURES} are read")
        found = Envelope.from_dict(raw)
    except (PackageError, Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProvenanceError(f"the provenance is no DSSE envelope: {error}") from error
    if found.payload_type != PAYLOAD_TYPE:
        raise ProvenanceError(f"the provenance holds {str(found.payload_type)[:80]!r}; it has to hold {PAYLOAD_TYPE}")
    return found


def verify(envelope: bytes, keys: Sequence[Key]) -> tuple[bytes, str]:
    """The statement's bytes, and the id of a key among ``keys`` that has signed them.

    Raises:
        ProvenanceError: none of them has.
    """
    found = read(envelope)
    if not found.signatures:
        raise ProvenanceError("nobody has signed the provenance")
    if not keys:
        raise ProvenanceError("no key may sign this provenance")
    try:
        accepted = found.verify(list(keys), 1)
    except (Error, ValueError) as error:
        names = ", ".join(keyid[:8] for keyid in found.signatures)
        raise ProvenanceError(
            f"none of the keys that may has signed the provenance; it has signatures of {names}"
        ) from error
    return found.payload, next(iter(accepted))


def _bytes(envelope: Envelope) -> bytes:
    document: dict[str, Any] = envelope.to_dict()
    document["signatures"].sort(key=lambda signature: signature["keyid"])
    return canonical_json(document)
