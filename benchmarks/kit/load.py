"""A load generator that costs little: sockets in one thread, one request under way on each connection.

Two kinds of load. Closed: each connection sends its next request when its answer has come; that shows what a server can
do. Open: requests come when they come, at random moments that do not depend on the answers; a latency counts from the
moment at which the request was due, so that a server's pause is felt by all who would have asked meanwhile.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

#: Nothing comes for so long: the server is given up.
SILENCE_S = 60.0
_RECEIVE = 1 << 18
_IN, _OUT = 1, 4  # EPOLLIN, EPOLLOUT; `select` has them on Linux alone
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class LoadError(Exception):
    """A server refuses, breaks off or falls silent; the message is one line."""


@dataclass(frozen=True)
class Load:
    """What a stretch of load showed: requests a second, and latencies in seconds."""

    per_second: float
    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: list[float], spent_s: float) -> Load:
        """From the latencies of all requests, and the time from the first to the last."""
        return cls(len(latencies) / spent_s, float(np.quantile(latencies, 0.5)), float(np.quantile(latencies, 0.99)))


def arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Moments, in seconds from the start, of a Poisson process: the same for the same seed."""
    count = max(1, round(per_second * seconds))
    return np.cumsum(np.random.default_rng(seed).exponential(1 / per_second, count)).tolist()


class Clients:
    """Connections to one server that stay open between stretches of load."""

    def __init__(self, port: int, connections: int, request: bytes) -> None:
        """Connect, and ask once.

        Raises:
            OSError: nobody listens.
            LoadError: the answer is none.
        """
        self._request, self._size = request, len(request)
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._unsent: dict[int, int] = {}
        self._partial: dict[int, bytes] = {}
        #: Most answers to one request have one length; the others are looked at with care.
        self._usual = -1
        try:
            for _ in range(connections):
                client = socket.create_connection(("127.0.0.1", port))
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets[client.fileno()] = client
                self._poll.register(client.fileno(), _IN)
            self._answer = self._ask()
        except BaseException:
            self.close()
            raise

    @property
    def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the first answer."""
        head, _, body = self._answer.partition(b"\r\n\r\n")
        return head, body

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, seconds: float) -> Load:
        """Closed load for some time.

        Raises:
            LoadError: the server refuses, breaks off or falls silent.
        """
        sent: dict[int, float] = {}
        taken: list[float] = []
        clock, poll, begin, arrived = time.perf_counter, self._poll.poll, self._begin, self._arrived
        start = clock()
        end = start + seconds
        for number in self._sockets:
            sent[number] = clock()
            begin(number)
        while sent:
            events = poll(SILENCE_S)
            if not events:
                raise LoadError(f"no answer for {SILENCE_S:.0f} s")
            for number, event in events:
                if arrived(number, event):
                    now = clock()
                    taken.append(now - sent[number])
                    if now < end:
                        sent[number] = now
                        begin(number)
                    else:
                        del sent[number]
        return Load.of(taken, clock() - start)

    def arrive(self, per_second: float, seconds: float, seed: int) -> Load:
        """Open load for some time; what finds no free connection waits here, and its wait counts.

        Raises:
            LoadError: the server refuses, breaks off or falls silent.
        """
        due = arrivals(per_second, seconds, seed)
        taken: list[float] = []
        free, waiting = deque(self._sockets), deque[float]()
        asked: dict[int, float] = {}
        clock, position = time.perf_counter, 0
        start = clock()
        while len(taken) < len(due):
            now = clock() - start
            while position < len(due) and due[position] <= now:
                waiting.append(due[position])
                position += 1
            while waiting and free:
                number = free.popleft()
                asked[number] = waiting.popleft()
                self._begin(number)
            pause = max(due[position] - (clock() - start), 0.0) if position < len(due) else SILENCE_S
            # `select` sleeps by the microsecond, `epoll` by the millisecond.
            if not select.select((self._poll,), (), (), pause)[0]:
                if position >= len(due):
                    raise LoadError(f"no answer for {SILENCE_S:.0f} s")
                continue
            for number, event in self._poll.poll(0):
                if self._arrived(number, event):
                    taken.append(clock() - start - asked[number])
                    free.append(number)
        return Load.of(taken, clock() - start)

    def close(self) -> None:
        """Close the connections."""
        for client in self._sockets.values():
            client.close()
        self._poll.close()

    def _ask(self) -> bytes:
        number = next(iter(self._sockets))
        self._begin(number)
        while True:
            if not (events := self._poll.poll(SILENCE_S)):
                raise LoadError(f"no answer for {SILENCE_S:.0f} s")
            for ready, event in events:
                if self._arrived(ready, event, keep=True):
                    return self._partial.pop(number)

    def _begin(self, number: int) -> None:
        try:
            sent = self._sockets[number].send(self._request)
        except BlockingIOError:
            sent = 0
        if sent < self._size:
            self._unsent[number] = sent
            self._poll.modify(number, _IN | _OUT)

    def _go_on(self, number: int) -> None:
        """Send more of a request that did not fit into the socket."""
        sent = self._unsent[number]
        sent += self._sockets[number].send(memoryview(self._request)[sent:])
        if sent < self._size:
            self._unsent[number] = sent
        else:
            del self._unsent[number]
            self._poll.modify(number, _IN)

    def _arrived(self, number: int, event: int, keep: bool = False) -> bool:
        """Whether an answer is whole."""
        if event & _OUT and number in self._unsent:
            self._go_on(number)
        if not event & ~_OUT:
            return False
        data = self._sockets[number].recv(_RECEIVE)
        if not data:
            raise LoadError("the server has closed a connection in the midst of a request")
        if number in self._partial:
            data = self._partial.pop(number) + data
        if len(data) != self._usual and not self._whole(data):
            self._partial[number] = data
            return False
        if not data.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"the server answers {data[:300]!r}")
        if keep:
            self._partial[number] = data
        return True

    def _whole(self, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        if found := _LENGTH.search(data, 0, end + 2):
            if len(data) < end + 4 + int(found[1]):
                return False
        elif not data.endswith(b"\r\n0\r\n\r\n"):  # chunked
            return False
        self._usual = len(data)
        return True
