"""The bytes of one MQTT connection: what comes in and goes out, in large pieces, with PUBLISH read and written here.

paho-mqtt is the protocol machine of everything else (connect, subscribe, keep alive, what goes out at QoS 1): it takes
a :class:`Wire` for its socket. It would ask a real one three times for each packet, and acknowledge each message by a
call of its own: a hub that receives thousands of messages a second would do little else. See
``docs/decisions/mqtt-link.md``.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

#: Bytes that are read at once, and how often before it is the turn of what goes out.
READ_BYTES, READS = 1 << 16, 8
#: paho's packets wait in its own queue while so much waits here.
MOST_WAITING = 1 << 20
_PUBLISH = 3
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Received = Callable[[bytes, bytes, int, int, bool], None]
"""``received(topic, payload, mid, qos, retained)``; ``mid`` is 0 at QoS 0."""


class WireError(OSError):
    """The broker sends what is no MQTT, or more than it was told to."""


class Wire:
    """A connected socket with a buffer on either side; only :meth:`acknowledge` and :meth:`publish` are for any thread.

    Args:
        sock: connected; it is made non-blocking.
        received: told of each PUBLISH at QoS 0 and 1.
        properties: whether a PUBLISH has properties, as in MQTT 5.
        max_packet_bytes: a longer packet ends the connection.

    Attributes:
        acknowledged: messages that the broker was told of.
        ended: whether the connection is lost.
    """

    def __init__(self, sock: socket.socket, received: Received, *, properties: bool, max_packet_bytes: int) -> None:
        self._sock, self._received = sock, received
        self._properties, self._max_packet_bytes = properties, max_packet_bytes
        self._in = bytearray()
        self._for_paho = bytearray()
        self._out = bytearray()
        self._acknowledged: deque[int] = deque()
        self._lock = threading.Lock()
        # One queue, whoever made the packet: what is published first goes out first, whatever its QoS.
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self.acknowledged = 0
        self.ended = False

    # -- as paho sees it ------------------------------------------------------------------------------------------

    def recv(self, size: int) -> bytes:
        """What is not a PUBLISH; raises BlockingIOError when there is nothing."""
        if self._for_paho:
            data = bytes(self._for_paho[:size])
            del self._for_paho[:size]
            return data
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """Take a packet to be sent with others; raises BlockingIOError when too much waits."""
        with self._lock:
            if self._queued_bytes + len(self._out) > MOST_WAITING:
                raise BlockingIOError
            self._queue.append(data)
            self._queued_bytes += len(data)
        return len(data)

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """The socket's."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Send what fits, a goodbye above all, and close."""
        self.flush()
        self._sock.close()

    # -- for any thread -------------------------------------------------------------------------------------------

    def acknowledge(self, mid: int) -> None:
        """Tell the broker, with the next flush, that a message was dealt with."""
        self._acknowledged.append(mid)

    def publish(self, topic: bytes, payload: bytes, *, retain: bool, most: int, most_bytes: int) -> bool:
        """Send a message at QoS 0 with the next flush; False when so many, or so many bytes, wait already."""
        head = len(topic).to_bytes(2, "big") + topic + (b"\0" if self._properties else b"")
        packet = (b"\x31" if retain else b"\x30") + _length(len(head) + len(payload)) + head + payload
        with self._lock:
            if len(self._queue) >= most or self._queued_bytes + len(packet) > most_bytes:
                return False
            self._queue.append(packet)
            self._queued_bytes += len(packet)
        return True

    # -- for the connection's loop --------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out or self._acknowledged or self._queue)

    @property
    def pending(self) -> bool:
        """Whether there is something to read that a selector does not see: bytes that TLS holds, or the end."""
        return self.ended or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    @property
    def has_packets(self) -> bool:
        """Whether there is something for paho to read."""
        return bool(self._for_paho) or self.ended

    def fill(self) -> None:
        """Read what has come, and take the messages out of it. A lost connection is for paho to see.

        Raises:
            WireError: the broker breaks the protocol.
        """
        self.take()
        for _ in range(READS):
            if self._for_paho:
                return
            try:
                data = self._sock.recv(READ_BYTES)
            except _NOT_NOW:
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self._in += data
            self.take()
            if len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket):
                return

    def flush(self) -> None:
        """Send what waits, as far as it is taken. A lost connection is for paho to see."""
        out = self._out
        if self._acknowledged:
            count = len(self._acknowledged)
            self.acknowledged += count
            take = self._acknowledged.popleft
            out += b"".join([b"\x40\x02" + take().to_bytes(2, "big") for _ in range(count)])
        if self._queue and len(out) <= MOST_WAITING:
            with self._lock:
                out += b"".join(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
        while out:
            try:
                del out[: self._sock.send(out)]
            except _NOT_NOW:
                return
            except OSError:
                self.ended = True
                out.clear()

    def take(self) -> None:
        """Tell of every message that has been read, up to the first packet that paho has to see before them.

        Raises:
            WireError: the broker breaks the protocol.
        """
        buffer, at, size = self._in, 0, len(self._in)
        # A broker that kept the session sends its messages right behind the CONNACK: whoever is told of the connection
        # must hear of it first.
        while at + 1 < size and not self._for_paho:
            start, length, shift = at + 1, 0, 0
            while start < size:
                digit = buffer[start]
                length |= (digit & 127) << shift
                start, shift = start + 1, shift + 7
                if digit < 128:
                    break
                if shift > 21:
                    raise WireError("the broker sends a packet whose length has no end")
            else:
                break
            if length > self._max_packet_bytes:
                raise WireError(f"the broker sends a packet of {length} bytes; {self._max_packet_bytes} are taken")
            end = start + length
            if end > size:
                break
            if buffer[at] >> 4 != _PUBLISH or not self._take_publish(buffer[at] & 15, bytes(buffer[start:end])):
                self._for_paho += buffer[at:end]
            at = end
        del buffer[:at]

    def _take_publish(self, flags: int, body: bytes) -> bool:
        """Tell of a message; False when paho has to see it: it is at QoS 2, or there is something odd about it."""
        qos = flags >> 1 & 3
        at = 2 + int.from_bytes(body[:2], "big")
        topic, mid = body[2:at], 0
        if qos == 1:
            mid = int.from_bytes(body[at : at + 2], "big")
            at += 2
        if self._properties:
            if at >= len(body) or body[at] > 127:  # longer properties than any that we know
                return False
            at += 1 + body[at]
        if qos > 1 or not topic or at > len(body) or (qos and not mid):
            return False
        self._received(topic, body[at:], mid, qos, bool(flags & 1))
        return True


def _length(size: int) -> bytes:
    """A packet's remaining length: seven bits a byte, the lowest first (MQTT 5, section 1.5.5)."""
    coded = bytearray()
    while True:
        size, digit = divmod(size, 128)
        coded.append(digit | (128 if size else 0))
        if not size:
            return bytes(coded)
