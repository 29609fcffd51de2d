"""The text of an enrolment token: what a person carries from the hub to a device.

``<id>.<secret>.<sha256 of the CA file>.<sha256 of the root metadata, or "-">``. The two hashes pin the hub: a device
that has the token needs to trust neither the network nor a public certificate authority.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass

_TEXT = re.compile(r"([0-9a-f]{12})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})\.([0-9a-f]{64}|-)")


@dataclass(frozen=True)
class EnrolmentToken:
    """A token, in parts.

    Attributes:
        id: names it in lists and logs; no secret.
        secret: 192 random bits; the hub keeps their SHA-256.
        ca: SHA-256 of the file of certificates by which the hub is known, hexadecimal.
        root: SHA-256 of the root metadata of signed releases, hexadecimal, or "" where it is brought in another way.
    """

    id: str
    secret: str
    ca: str
    root: str = ""

    @classmethod
    def new(cls, ca: bytes, root: bytes | None) -> EnrolmentToken:
        """A fresh one that pins these files."""
        pin = hashlib.sha256(root).hexdigest() if root is not None else ""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(24), hashlib.sha256(ca).hexdigest(), pin)

    @classmethod
    def parse(cls, text: str) -> EnrolmentToken:
        """Read one.

        Raises:
            ProtocolError: it is none; the message does not repeat it.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ProtocolError(
                "this is no enrolment token: copy the whole line that `cloud-hub enrolment create` printed"
            )
        name, secret, ca, root = found.groups()
        return cls(name, secret, ca, "" if root == "-" else root)

    def __repr__(self) -> str:
        """Without the secret: it may be logged."""
        return f"EnrolmentToken({self.id})"

    @property
    def text(self) -> str:
        """What a person copies."""
        return ".".join((self.id, self.secret, self.ca, self.root or "-"))

    @property
    def secret_hash(self) -> str:
        """What the hub keeps of the secret: SHA-256 is enough for 192 random bits, which nobody can try out."""
        return hash_secret(self.secret)


def hash_secret(secret: str) -> str:
    """What is kept of a secret of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()
