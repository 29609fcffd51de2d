"""The hub's ports: what its parts ask of one another where that is less than a whole class, on one page."""

from __future__ import annotations

from typing import Protocol

from edgeloop.protocol import ReleaseRef


class Publisher(Protocol):
    """Whoever can send a message to devices."""

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Send soon, without blocking; False when it cannot be sent now."""


class RolloutStarter(Protocol):
    """Whoever moves a channel from its current release to a candidate."""

    def start(self, channel: str, digest: str) -> str:
        """Start a rollout and return its id; raises Conflict when the channel has one under way."""


class Sealer(Protocol):
    """Whoever answers for what devices are told, so that nobody else can tell them anything."""

    def target(self, release: ReleaseRef, /) -> str:
        """Path under which the signed metadata name the release; "" where they do not."""

    def check(self, release: ReleaseRef) -> None:
        """Raise Conflict when no publisher has signed the release: no device would take it."""

    def next_serial(self, last: int) -> int:
        """The serial of a document that replaces the one with ``last``."""

    def seal(self, channel: str, document: bytes, /) -> bytes | None:
        """Vouch for a channel's document, in the caller's transaction; None while nothing can be signed.

        The same document again is not signed again; what is signed last is what devices believe.
        """

    def seal_desired(self, document: bytes) -> bytes | None:
        """Vouch for what is wanted of a device; None while nothing can be signed."""

    def adopt(self, base: ReleaseRef, release: ReleaseRef) -> None:
        """Vouch for a release that the hub has made from ``base``, in the caller's transaction; raises Conflict."""
