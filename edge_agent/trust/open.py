"""Trust in a fleet without signatures: whatever can be read is believed. For development, on one machine."""

from __future__ import annotations

from contextlib import suppress

from edge_agent.ports import TrustState, Untrusted, Vouched, Work
from edgeloop.protocol import ChannelDocument, Desired, ProtocolError, SignedChannel, SignedDesired


class OpenTrust:
    """Implements `edge_agent.ports.Trust`."""

    def soon(self, subject: str, work: Work) -> None:
        """Do it at once."""
        work()

    def open_channel(self, channel: str, payload: bytes) -> ChannelDocument:
        """The document, if it is the channel's."""
        return read_channel(channel, payload)[1]

    def open_desired(self, payload: bytes) -> Desired:
        """The document; nothing at all takes earlier ones back."""
        return Desired.from_bytes(SignedDesired.from_bytes(payload).document) if payload else Desired()

    def era(self) -> str:
        """There are no keys: serials count for ever."""
        return ""

    def vouch(self, release: str, index_size: int, target: str) -> Vouched:
        """Nobody does, and nobody has to."""
        return Vouched()

    def state(self) -> TrustState:
        """Nothing is signed."""
        return TrustState()

    def stop(self, timeout_s: float) -> None:
        """Nothing runs."""


class NoRoot(OpenTrust):
    """Trust of a device that was enrolled before its fleet signed anything: there is nothing to hold a signature to."""

    reason = (
        "this device was enrolled before its fleet had a root of signed releases: enrol it again (`edge-agent enrol`)"
    )

    def open_channel(self, channel: str, payload: bytes) -> ChannelDocument:
        """Raises `Untrusted`."""
        raise Untrusted(self.reason)

    def open_desired(self, payload: bytes) -> Desired:
        """Raises `Untrusted`."""
        raise Untrusted(self.reason)

    def vouch(self, release: str, index_size: int, target: str) -> Vouched:
        """Raises `Untrusted`."""
        raise Untrusted(self.reason)

    def state(self) -> TrustState:
        """Nothing is trusted, and why."""
        return TrustState(True, trouble=self.reason)

    def soon(self, subject: str, work: Work) -> None:
        """Do it at once, and never again."""
        with suppress(Untrusted):
            work()


def read_channel(channel: str, payload: bytes) -> tuple[SignedChannel, ChannelDocument]:
    """What is on a channel's topic, and the document in it, which nobody has vouched for yet.

    Raises:
        ProtocolError: it is none, or another channel's.
    """
    sealed = SignedChannel.from_bytes(payload)
    document = ChannelDocument.from_bytes(sealed.document)
    if document.channel != channel:
        raise ProtocolError(f"the document is of channel {document.channel!r}, the topic of {channel!r}")
    return sealed, document
