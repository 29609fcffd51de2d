"""What is inside of the payloads that carry signatures."""

from __future__ import annotations

from edgeloop.protocol import ChannelDocument, SignedChannel


def channel_document(payload: bytes) -> ChannelDocument:
    """The document in what is on a channel's topic."""
    return ChannelDocument.from_bytes(SignedChannel.from_bytes(payload).document)
