"""Many devices in one process: window messages over raw sockets, as fast as the broker takes them, or at a rate.

Run as ``python -m benchmarks.kit.flood PORT DEVICES MESSAGE_FILE``. The file holds some insights messages. Each device
sends copies of one, with its name, its epoch, the next sequence numbers and the time since its last one put in. Each
line that it gets is an order as JSON, each line that it prints the answer:

``{"fleet": "a", "each": 40, "wait": true}`` sends 40 messages of every device; with ``wait`` it answers when the hub
has acknowledged all of them. ``{"fleet": "a", "rate": 20000, "seconds": 10}`` sends at a rate, whatever becomes of it.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cbor2

from edgeloop.protocol import Topics

#: Connections that the devices share: what is measured is the hub, not the broker's own sockets.
CONNECTIONS = 4
#: Bytes that are given to a socket at once.
CHUNK = 1 << 16
#: Nothing is acknowledged for so long: the hub is given up.
SILENCE_S = 60.0
TICK_S = 0.01
_MARKERS = {"first": 0x1122334455667701, "last": 0x1122334455667702, "base": 0x1122334455667703}


class Device:
    """One device's message with holes for its numbers."""

    def __init__(self, number: int, message: dict[str, object]) -> None:
        self.name = f"device-{number:05d}"
        self.sent: Counter[str] = Counter()
        payload = cbor2.dumps({**message, "device": self.name, "epoch": 1_000_000 + number, **_MARKERS})
        self._payload = bytearray(payload)
        self._holes = [payload.index(struct.pack(">Q", marker)) for marker in _MARKERS.values()]
        self._start, self._end = payload.index(b"\x65start\xfb") + 7, payload.index(b"\x63end\xfb") + 5
        self._before = time.time()

    def next(self, fleet: str, topic: bytes, mid: int, *, alone: bool) -> bytes:
        """The PUBLISH packet of its next message; ``alone``: nothing before it is claimed to be in the outbox."""
        self.sent[fleet] += 1
        number, (first, last, base) = self.sent[fleet], self._holes
        struct.pack_into(">Q", self._payload, first, number)
        struct.pack_into(">Q", self._payload, last, number)
        struct.pack_into(">Q", self._payload, base, number if alone else 1)
        struct.pack_into(">d", self._payload, self._start, self._before)
        self._before = time.time()
        struct.pack_into(">d", self._payload, self._end, self._before)
        variable = struct.pack(">H", len(topic)) + topic + struct.pack(">H", mid)
        return b"\x32" + _length(len(variable) + len(self._payload)) + variable + self._payload


class Flood:
    """The devices and their connections."""

    def __init__(self, port: int, devices: int, messages: list[dict[str, object]]) -> None:
        self.port = port
        self.devices = [Device(number, messages[number % len(messages)]) for number in range(devices)]
        self.lines = [_connect(port, f"flood-{number}") for number in range(CONNECTIONS)]
        self._mid = 0

    def burst(self, fleet: str, each: int, *, wait: bool) -> dict[str, float]:
        """So many messages of every device, as fast as they are taken."""
        topics = Topics(fleet)
        acks = Acknowledgements(self.port, topics) if wait else None
        packets = self._packets(topics, each * len(self.devices), alone=False)
        parts: list[list[bytes]] = [[] for _ in self.lines]
        for number, packet in enumerate(packets):
            parts[number % len(self.devices) % len(parts)].append(packet)
        waiting = [memoryview(b"".join(part)) for part in parts]
        print("ready", flush=True)
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for line, left in zip(self.lines, waiting, strict=True):
                selector.register(line, selectors.EVENT_READ | selectors.EVENT_WRITE, left)
            while selector.get_map():
                for key, events in selector.select(1.0):
                    line, left = key.fileobj, key.data
                    assert isinstance(line, socket.socket)
                    if events & selectors.EVENT_READ:
                        line.recv(CHUNK)
                    if events & selectors.EVENT_WRITE:
                        left = left[line.send(left[:CHUNK]) :]
                        if len(left):
                            selector.modify(line, selectors.EVENT_READ | selectors.EVENT_WRITE, left)
                        else:
                            selector.unregister(line)
        sent_s = time.monotonic() - began
        if acks is not None:
            acks.wait({device.name: device.sent[fleet] for device in self.devices})
        return {"sent_s": sent_s, "done_s": time.monotonic() - began, "messages": each * len(self.devices)}

    def stream(self, fleet: str, rate: float, seconds: float) -> dict[str, float]:
        """At a rate, for so long; a broker that does not take it makes it fewer."""
        packets = self._packets(Topics(fleet), 1 << 62, alone=True)
        print("ready", flush=True)
        began, sent, left = time.monotonic(), 0, b""
        line = 0
        while (now := time.monotonic() - began) < seconds:
            for other in self.lines:
                _discard(other)
            due = int(rate * now) - sent
            if not left and due > 0:
                count = min(due, 200)
                left, sent = b"".join(next(packets) for _ in range(count)), sent + count
            if left:
                try:
                    left = left[self.lines[line].send(left) :]
                except BlockingIOError:
                    time.sleep(0.001)
                if not left:
                    line = (line + 1) % len(self.lines)
            else:
                time.sleep(TICK_S)
        while left:
            _discard(self.lines[line])
            try:
                left = left[self.lines[line].send(left) :]
            except BlockingIOError:
                time.sleep(0.001)
        return {"messages": sent, "seconds": time.monotonic() - began}

    def _packets(self, topics: Topics, count: int, *, alone: bool) -> Iterator[bytes]:
        names = [topics.insights(device.name).encode() for device in self.devices]
        for number in range(count):
            place = number % len(self.devices)
            self._mid = self._mid % 65_535 + 1
            yield self.devices[place].next(topics.fleet, names[place], self._mid, alone=alone)


class Acknowledgements:
    """What the hub says that it has committed."""

    def __init__(self, port: int, topics: Topics) -> None:
        self._line = _connect(port, "flood-acks", blocking=True)
        wanted = topics.every("ack").encode()
        body = b"\x00\x01" + struct.pack(">H", len(wanted)) + wanted + b"\x00"
        self._line.sendall(b"\x82" + _length(len(body)) + body)
        self._buffer = bytearray()
        self._line.settimeout(SILENCE_S)

    def wait(self, wanted: dict[str, int]) -> None:
        """Until every device has this number acknowledged."""
        missing = dict(wanted)
        while missing:
            self._buffer += self._line.recv(CHUNK)
            for topic, payload in self._publishes():
                device = topic.split("/")[4]
                if cbor2.loads(payload)["last"] >= missing.get(device, 1 << 62):
                    del missing[device]
        self._line.close()

    def _publishes(self) -> Iterator[tuple[str, bytes]]:
        at = 0
        while (found := _whole(self._buffer, at)) is not None:
            start, end = found
            if self._buffer[at] >> 4 == 3:
                size = int.from_bytes(self._buffer[start : start + 2], "big")
                yield self._buffer[start + 2 : start + 2 + size].decode(), bytes(self._buffer[start + 2 + size : end])
            at = end
        del self._buffer[:at]


def _whole(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """(start of the body, end) of the packet at an offset; None while it is not whole."""
    size = shift = 0
    for place in range(at + 1, min(at + 5, len(buffer))):
        size |= (buffer[place] & 127) << shift
        shift += 7
        if buffer[place] < 128:
            end = place + 1 + size
            return (place + 1, end) if end <= len(buffer) else None
    return None


def _connect(port: int, name: str, *, blocking: bool = False) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    client = name.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(client)) + client
    line.sendall(b"\x10" + _length(len(body)) + body)
    if line.recv(4) != b"\x20\x02\x00\x00":
        raise ConnectionError("the broker refuses the connection")
    line.setblocking(blocking)
    return line


def _discard(line: socket.socket) -> None:
    try:
        line.recv(CHUNK)
    except BlockingIOError:
        return


def _length(size: int) -> bytes:
    coded = bytearray()
    while True:
        size, digit = divmod(size, 128)
        coded.append(digit | (128 if size else 0))
        if not size:
            return bytes(coded)


def main() -> None:
    """Follow orders until the input ends."""
    port, devices, file = sys.argv[1:]
    flood = Flood(int(port), int(devices), cbor2.loads(Path(file).read_bytes()))
    for line in sys.stdin:
        order = json.loads(line)
        if "rate" in order:
            answer = flood.stream(order["fleet"], order["rate"], order["seconds"])
        else:
            answer = flood.burst(order["fleet"], order["each"], wait=order["wait"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
