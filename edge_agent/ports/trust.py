"""Who vouches for what comes from the hub, as messaging and the update machine see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgeloop.protocol import ChannelDocument, Desired
from edgeloop.records import dataclass

Work = Callable[[], None]


class Untrusted(Exception):
    """Nobody who may has vouched for what came from the hub; the message is the reason that people read.

    Attributes:
        again: whether the same may be trusted later: the hub could not be asked, or the clock may be wrong.
    """

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class Vouched:
    """Who answers for a release; in a fleet without signatures nobody does, and every field is empty.

    Attributes:
        model: whose release it is.
        order: (counter, revision): greater for a later release of the model; None where nothing is signed.
        role: that names it.
        base: digest of the publisher's release that it was retrained from; None for a publisher's own.
    """

    model: str = ""
    order: tuple[int, int] | None = None
    role: str = ""
    base: str | None = None


@dataclass(frozen=True)
class TrustState:
    """What status shows of trust.

    Attributes:
        signed: whether the fleet signs.
        root: version of the root that is trusted, or 0.
        ends: unix seconds at which the first of the metadata ends, or 0.
        trouble: why something is not trusted now, or "".
        refused: documents and releases that were not trusted, since the start.
        ms: milliseconds that the latest verification took, without its process's start.
    """

    signed: bool = False
    root: int = 0
    ends: float = 0.0
    trouble: str = ""
    refused: int = 0
    ms: int = 0


class Trust(Protocol):
    """Who vouches for what comes from the hub. Whatever is not vouched for changes nothing: what served goes on."""

    def soon(self, subject: str, work: Work) -> None:
        """Have something opened where that may take its time; of a subject only the latest counts.

        ``work`` may raise `Untrusted`; it is called again when that may pass.
        """

    def open_channel(self, channel: str, payload: bytes) -> ChannelDocument:
        """What is on a channel's topic; raises ProtocolError or `Untrusted`."""

    def open_desired(self, payload: bytes) -> Desired | None:
        """What is on the device's ``desired`` topic, or None to change nothing; raises ProtocolError or `Untrusted`."""

    def era(self) -> str:
        """Which keys sign documents now, "" where none do: serials count for as long as these do, and then anew."""

    def vouch(self, release: str, index_size: int, target: str) -> Vouched:
        """Who answers for a release that the latest document names; raises `Untrusted`.

        Args:
            release: its digest.
            index_size: bytes of its index.
            target: its path in the fleet's signed metadata, or "".
        """

    def state(self) -> TrustState:
        """What is trusted now."""

    def stop(self, timeout_s: float) -> None:
        """End what is under way."""
