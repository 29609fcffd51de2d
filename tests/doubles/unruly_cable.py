"""A cable to a broker on which a device's windows arrive twice, and in another order than they were sent in."""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator

from tests.doubles.cable import Cable

_PUBLISH, _DUP = 3, 0x08
#: So long a window is held back when nothing comes after which it could go, seconds.
_HELD_S = 0.3


class UnrulyCable(Cable):
    """Of a client's windows (what it publishes on a topic that ends in ``/insights``) every third one goes twice, and
    every second one waits until the next one has gone. Both are what MQTT may do at QoS 1 when connections break.

    Attributes:
        tricks: how many went ``twice`` and how many went ``later``.
    """

    def __init__(self, to_port: int) -> None:
        self.tricks: Counter[str] = Counter()
        self._seen = 0
        super().__init__(to_port)

    def upward(self, near: socket.socket, far: socket.socket) -> None:
        """Carry packets one by one."""
        held: list[bytes] = []
        for packet in _packets(near):
            if packet is not None and not _is_window(packet):
                far.sendall(packet)
                continue
            if packet is not None:
                self._seen += 1
                if self._seen % 2 == 0 and not held:
                    held.append(packet)
                    self.tricks["later"] += 1
                    continue
                far.sendall(packet)
                if self._seen % 3 == 0:
                    far.sendall(bytes([packet[0] | _DUP]) + packet[1:])
                    self.tricks["twice"] += 1
            if held:
                far.sendall(held.pop())


def _packets(near: socket.socket) -> Iterator[bytes | None]:
    """MQTT packets as they come; None whenever there was silence."""
    data = b""
    while True:
        while (size := _size(data)) is not None and len(data) >= size:
            yield data[:size]
            data = data[size:]
        if not select.select([near], [], [], _HELD_S)[0]:
            yield None
            continue
        if not (more := near.recv(1 << 16)):
            return
        data += more


def _size(data: bytes) -> int | None:
    """Length of the packet at the beginning of ``data``; None while that cannot be seen (MQTT 5, section 1.5.5)."""
    value = 0
    for place, byte in enumerate(data[1:5]):
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return 2 + place + value
    return None


def _is_window(packet: bytes) -> bool:
    if packet[0] >> 4 != _PUBLISH:
        return False
    start = next(place for place in range(1, 5) if not packet[place] & 0x80) + 1
    length = int.from_bytes(packet[start : start + 2], "big")
    return packet[start + 2 : start + 2 + length].endswith(b"/insights")
