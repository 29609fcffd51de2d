"""MQTT topics: built and parsed here and nowhere else.

Everything lives under ``edgeloop/v1/<fleet>/``: ``d/<device>/<kind>`` for one device, ``c/<channel>`` for every
follower.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass

DeviceKind = Literal["presence", "reported", "insights", "samples", "escalations", "ack", "answers", "desired"]
Kind = Literal[DeviceKind, "channel"]

DEVICE_KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)
RETAINED_KINDS: frozenset[str] = frozenset({"presence", "reported", "desired", "channel"})
NAME_PATTERN = "[A-Za-z0-9_.-]{1,64}"
_NAME = re.compile(NAME_PATTERN)
_ROOT = "edgeloop/v1"


@dataclass(frozen=True)
class Address:
    """What a topic says: its kind and the device, or the channel, that it is about (the other is None)."""

    kind: Kind
    device: str | None = None
    channel: str | None = None


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` when it can be a level of a topic.

    Raises:
        ProtocolError: it is not 1 to 64 of the characters ``A-Z a-z 0-9 _ . -``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ProtocolError(f"the {what} {name!r} has to be 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return name


class Topics:
    """The topics of one fleet.

    Args:
        fleet: the fleet's name.

    Raises:
        ProtocolError: from the constructor and from every method, for a name that cannot be in a topic.
    """

    def __init__(self, fleet: str) -> None:
        self.fleet = check_name(fleet, "fleet")
        self._root = f"{_ROOT}/{self.fleet}"

    def device(self, kind: DeviceKind, device: str) -> str:
        """The topic of one kind for one device."""
        if kind not in DEVICE_KINDS:
            raise ProtocolError(f"{kind!r} is no kind of device topic; there are {', '.join(DEVICE_KINDS)}")
        return f"{self._root}/d/{check_name(device, 'device')}/{kind}"

    def presence(self, device: str) -> str:
        """Device → hub, retained, also the device's will."""
        return self.device("presence", device)

    def reported(self, device: str) -> str:
        """Device → hub, retained: what the device says of itself."""
        return self.device("reported", device)

    def insights(self, device: str) -> str:
        """Device → hub: closed windows."""
        return self.device("insights", device)

    def samples(self, device: str) -> str:
        """Device → hub: inputs kept for retraining, where that is allowed."""
        return self.device("samples", device)

    def escalations(self, device: str) -> str:
        """Device → hub: hard inputs for the teacher."""
        return self.device("escalations", device)

    def ack(self, device: str) -> str:
        """Hub → device: what the hub has committed."""
        return self.device("ack", device)

    def answers(self, device: str) -> str:
        """Hub → device: labels for earlier predictions."""
        return self.device("answers", device)

    def desired(self, device: str) -> str:
        """Hub → device, retained: its channel, pin and policy."""
        return self.device("desired", device)

    def channel(self, channel: str) -> str:
        """Hub → every follower, retained: the channel document."""
        return f"{self._root}/c/{check_name(channel, 'channel')}"

    @property
    def everything(self) -> str:
        """The filter for all topics of the fleet; only the hub may use it."""
        return f"{self._root}/#"

    def fence(self) -> str:
        """Hub → nobody: it publishes here to know that the broker has done what it was asked before."""
        return f"{self._root}/fence"

    def every(self, kind: Kind) -> str:
        """The subscription filter for one kind of every device, or of every channel."""
        if kind == "channel":
            return f"{self._root}/c/+"
        return self.device(kind, "any").replace("/d/any/", "/d/+/")

    def parse(self, topic: str) -> Address:
        """Read a topic of this fleet.

        Raises:
            ProtocolError: it is not one of this fleet's topics.
        """
        prefix, levels = topic[: len(self._root) + 1], topic[len(self._root) + 1 :].split("/")
        if prefix == self._root + "/":
            if len(levels) == 2 and levels[0] == "c":
                return Address("channel", channel=check_name(levels[1], "channel"))
            if len(levels) == 3 and levels[0] == "d" and levels[2] in DEVICE_KINDS:
                return Address(levels[2], device=check_name(levels[1], "device"))
        raise ProtocolError(f"the topic {topic[:200]!r} is none of the fleet {self.fleet!r}")
