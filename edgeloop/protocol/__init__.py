"""What crosses MQTT: topics, messages and their bytes. The client is in :mod:`edgeloop.protocol.link`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.lazy import lazily
from edgeloop.protocol.codec import MAX_BYTES, MAX_WINDOW_BYTES, VERSION, decode, encode
from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.topics import Address, Topics, check_name

if TYPE_CHECKING:
    from edgeloop.protocol.inputs import Escalation, Sample, TeacherAnswer
    from edgeloop.protocol.messages import (
        Ack,
        Answers,
        ChannelDocument,
        Desired,
        DeviceAlarm,
        Insights,
        Presence,
        ReleaseRef,
        Reported,
        RolloutRef,
        SignedChannel,
        SignedDesired,
        UpdateReport,
        position,
    )
    from edgeloop.protocol.trials import TrialReport, TrialRequest
else:
    __getattr__ = lazily(__name__, "messages")

__all__ = [
    "MAX_BYTES",
    "MAX_WINDOW_BYTES",
    "VERSION",
    "Ack",
    "Address",
    "Answers",
    "ChannelDocument",
    "Desired",
    "DeviceAlarm",
    "Escalation",
    "Insights",
    "Presence",
    "ProtocolError",
    "ReleaseRef",
    "Reported",
    "RolloutRef",
    "Sample",
    "SignedChannel",
    "SignedDesired",
    "TeacherAnswer",
    "Topics",
    "TrialReport",
    "TrialRequest",
    "UpdateReport",
    "check_name",
    "decode",
    "encode",
    "position",
]
