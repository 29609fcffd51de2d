"""What a hub says of its fleet's trust: the answer of ``GET /api/v1/trust``, which publishers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from securesystemslib.signer import Key

from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass
from edgeloop.trust import keys as key_files
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import ONLINE, check_role, parse_release

MAX_NAMED = 10_000
"""Paths that are read."""


@dataclass(frozen=True)
class TrustState:
    """A hub's answer; nothing in it is believed without signatures.

    Attributes:
        fleet: the fleet's name.
        online: role → the key that the hub wants to sign it with: what people put into ``root`` and ``targets``.
        versions: role → its newest version; no roles while people have signed nothing.
        named: paths of the releases that a channel names now, and of their bases: publishers go on to name them.
    """

    fleet: str
    online: Mapping[str, Key]
    versions: Mapping[str, int]
    named: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """As JSON values; a hub may say more."""
        return {
            "fleet": self.fleet,
            "online": {role: key_files.to_document(key) for role, key in self.online.items()},
            "versions": dict(self.versions),
            "named": list(self.named),
        }

    @classmethod
    def from_document(cls, document: Any) -> TrustState:
        """Read a hub's answer; other fields are ignored.

        Raises:
            TrustError: it is none.
        """
        try:
            online = {role: key_files.from_document(document["online"][role]) for role in ONLINE}
            versions = {check_role(role): int(version) for role, version in dict(document["versions"]).items()}
            named = [str(parse_release(path)) for path in list(document["named"])[:MAX_NAMED]]
            return cls(str(document["fleet"]), online, versions, tuple(named))
        except (KeyError, TypeError, ValueError, AttributeError, ProtocolError) as error:
            raise TrustError(f"no hub of a fleet that signs answers like this: {error}") from error
