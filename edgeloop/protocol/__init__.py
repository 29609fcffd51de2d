"""What crosses MQTT: topics, messages and their bytes. The client is in :mod:`edgeloop.protocol.link`."""

from __future__ import annotations

from edgeloop.protocol.codec import MAX_BYTES, VERSION, decode, encode
from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.messages import (
    Ack,
    Answers,
    ChannelDocument,
    Desired,
    Insights,
    Presence,
    ReleaseRef,
    Reported,
    RolloutRef,
    UpdateReport,
    position,
)
from edgeloop.protocol.topics import Address, Topics, check_name

__all__ = [
    "MAX_BYTES",
    "VERSION",
    "Ack",
    "Address",
    "Answers",
    "ChannelDocument",
    "Desired",
    "Insights",
    "Presence",
    "ProtocolError",
    "ReleaseRef",
    "Reported",
    "RolloutRef",
    "Topics",
    "UpdateReport",
    "check_name",
    "decode",
    "encode",
    "position",
]
