"""What a device's trust hangs on: the root that it was enrolled with, and when."""

from __future__ import annotations

from pathlib import Path

from edge_agent.identity import Identity
from edgeloop.records import dataclass


@dataclass(frozen=True)
class Anchor:
    """What the device was enrolled with.

    Attributes:
        root: metadata of the role ``root``, as pinned then.
        enrolled_at: unix seconds.
        data: folder that holds the identity by which the hub is spoken to; None: as anybody.
    """

    root: bytes
    enrolled_at: float
    data: Path | None = None

    @classmethod
    def of(cls, identity: Identity) -> Anchor | None:
        """That of an enrolled device; None where its fleet had no root then."""
        root = identity.root
        return None if root is None else cls(root, identity.enrolled_at, identity.folder.parent)
