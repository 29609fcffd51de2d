"""The wire: packets come out whole however they are cut, and what is not a plain PUBLISH is left to paho."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from edgeloop.protocol.wire import Wire, WireError

Told = tuple[bytes, bytes, int, int, bool]


def packet(head: int, body: bytes) -> bytes:
    size, coded = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        coded.append(digit | (128 if size else 0))
        if not size:
            return bytes([head]) + bytes(coded) + body


def publish(topic: bytes, payload: bytes, mid: int = 0, *, properties: bytes = b"", retained: bool = False) -> bytes:
    number = mid.to_bytes(2, "big") if mid else b""
    body = len(topic).to_bytes(2, "big") + topic + number + properties + payload
    return packet(0x30 | (2 if mid else 0) | retained, body)


class Ends:
    """A wire and the other end of its socket."""

    def __init__(self, *, properties: bool = False, most: int = 1 << 20) -> None:
        mine, self.other = socket.socketpair()
        self.told: list[Told] = []
        self.wire = Wire(mine, lambda *told: self.told.append(told), properties=properties, max_packet_bytes=most)
        self.wire.setblocking(False)
        self.other.settimeout(10)
        self._paho = b""

    def fill(self) -> None:
        """As the connection does: paho reads its packets as they come, in between."""
        self.wire.fill()
        while self.wire.has_packets and (more := self.wire.recv(100)):
            self._paho += more
            self.wire.take()

    def paho(self) -> bytes:
        return self._paho

    def close(self) -> None:
        self.wire.close()
        self.other.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_messages_are_told_of_and_other_packets_left(ends: Ends) -> None:
    ping, large = packet(0xD0, b""), b"x" * 70_000
    ends.other.sendall(publish(b"a/b", b"1") + ping + publish(b"c", b"2", 7, retained=True))
    ends.fill()
    ends.other.setblocking(False)
    stream = publish(b"d", large, 8)
    until = time.monotonic() + 20
    while stream and time.monotonic() < until:
        stream = stream[ends.other.send(stream[:5000]) :]
        ends.fill()
    assert ends.told == [(b"a/b", b"1", 0, 0, False), (b"c", b"2", 7, 1, True), (b"d", large, 8, 1, False)]
    assert ends.paho() == ping


def test_messages_wait_until_paho_has_read_what_came_before_them(ends: Ends) -> None:
    connack = packet(0x20, b"\x01\x00")
    ends.other.sendall(connack + publish(b"kept", b"1", 1) + publish(b"kept", b"2", 2))
    ends.wire.fill()
    assert ends.told == [], "who is told of the connection hears of it first"
    assert ends.wire.recv(100) == connack
    ends.wire.take()
    assert [payload for _, payload, *_ in ends.told] == [b"1", b"2"]


@pytest.mark.parametrize("properties", [False, True])
def test_packets_come_whole_however_they_are_cut(properties: bool) -> None:
    ends = Ends(properties=properties)
    extra = b"\x05\x02\x00\x00\x00\x09" if properties else b""
    suback = packet(0x90, b"abc")
    stream = publish(b"t", b"x" * 200, 1, properties=extra) + suback + publish(b"u", b"", properties=extra)
    for byte in stream:
        ends.other.sendall(bytes([byte]))
        ends.fill()
    assert ends.told == [(b"t", b"x" * 200, 1, 1, False), (b"u", b"", 0, 0, False)]
    assert ends.paho() == suback
    ends.close()


@pytest.mark.parametrize(
    "odd",
    [
        packet(0x34, b"\x00\x01t\x00\x01x"),
        packet(0x32, b"\x00\x01t\x00\x00x"),
        packet(0x32, b"\x00\x01t"),
        packet(0x30, b"\x00\x00x"),
        packet(0x30, b"\x00\x09t"),
        packet(0x30, b""),
    ],
    ids=["QoS 2", "no number", "cut", "no topic", "a topic that is too long", "nothing"],
)
def test_an_odd_publish_is_left_to_paho(ends: Ends, odd: bytes) -> None:
    ends.other.sendall(odd)
    ends.fill()
    assert (ends.told, ends.paho()) == ([], odd)


def test_long_properties_are_left_to_paho() -> None:
    ends = Ends(properties=True)
    odd = packet(0x30, b"\x00\x01t\x80\x01" + b"\x26" + b"\x00" * 127 + b"x")
    ends.other.sendall(odd)
    ends.fill()
    assert (ends.told, ends.paho()) == ([], odd)
    ends.close()


def test_a_broker_that_sends_too_much_or_no_end_is_left() -> None:
    for sent in (b"\x30\xff\xff\xff\xff\x01", b"\x30\xff\xff\x7f"):
        ends = Ends(most=1000)
        ends.other.sendall(sent)
        with pytest.raises(WireError):
            ends.fill()
        ends.close()


def test_what_goes_out_is_sent_together_and_bounded(ends: Ends) -> None:
    assert ends.wire.send(b"\xc0\x00") == 2
    ends.wire.acknowledge(3)
    ends.wire.acknowledge(258)
    assert ends.wire.publish(b"t", b"xy", retain=True, most=3, most_bytes=100)
    assert not ends.wire.publish(b"t", b"x" * 100, retain=False, most=3, most_bytes=100)
    assert ends.wire.publish(b"t", b"z", retain=False, most=3, most_bytes=100)
    assert not ends.wire.publish(b"t", b"z", retain=False, most=3, most_bytes=100)
    assert ends.wire.waits
    ends.wire.flush()
    assert not ends.wire.waits
    acknowledgements = b"\x40\x02\x00\x03\x40\x02\x01\x02"
    messages = publish(b"t", b"xy", retained=True) + publish(b"t", b"z")
    assert ends.other.recv(100) == acknowledgements + b"\xc0\x00" + messages


def test_paho_keeps_what_the_network_does_not_take(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        for _ in range(100):
            ends.wire.send(b"x" * 100_000)
            ends.wire.flush()
    assert ends.wire.waits


def test_a_lost_connection_ends_what_paho_reads(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends.wire.recv(10)
    ends.other.close()
    ends.fill()
    assert ends.wire.has_packets and ends.wire.recv(10) == b""
