"""The seal of a fleet without signatures: everything passes, nothing is vouched for."""

from __future__ import annotations

from edgeloop.protocol import ReleaseRef, SignedChannel, SignedDesired


class Unsigned:
    """A `Sealer` for a fleet without signatures."""

    def target(self, _release: ReleaseRef) -> str:
        """Nothing names releases."""
        return ""

    def check(self, release: ReleaseRef) -> None:
        """Every release may be offered."""

    def next_serial(self, last: int) -> int:
        """One more."""
        return last + 1

    def seal(self, _channel: str, document: bytes) -> bytes | None:
        """The document as it is."""
        return SignedChannel(document).to_bytes()

    def seal_desired(self, document: bytes) -> bytes | None:
        """The document as it is."""
        return SignedDesired(document).to_bytes()

    def adopt(self, base: ReleaseRef, release: ReleaseRef) -> None:
        """Every release of the hub may be offered."""
