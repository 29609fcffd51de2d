"""How long a connection is waited for, and the end of one that has had its time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

#: A connection may have so much more time than it was given, so that requests need not set a timer each, seconds.
SLACK_S = 30.0


class Patience:
    """The time of one connection. Its timer looks once in a while; most requests only move the time that it looks at.

    Attributes:
        since: when it was last waited for something, in the loop's time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[], None]) -> None:
        """Wait for nothing yet; ``late`` is called when a time is over."""
        self._loop, self._late = loop, late
        self._timer: asyncio.TimerHandle | None = None
        self.since, self._until = loop.time(), 0.0

    def wait(self, seconds: float, *, exactly: bool = False) -> None:
        """Something has to come within ``seconds`` from now, and up to `SLACK_S` more if not ``exactly``."""
        self.since = self._loop.time()
        self._until = self.since + seconds
        if exactly or self._timer is None or self._timer.when() > self._until + SLACK_S:
            self.look_in(seconds)

    def look_in(self, seconds: float) -> None:
        """Look then, whatever was said before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def end(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        left = self._until - self._loop.time()
        if left > 0:
            self.look_in(max(left, 1.0))
        else:
            self._late()


def cut(transport: asyncio.Transport) -> None:
    """Reset a connection: the kernel keeps megabytes for a client that does not read, until it gives it up."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
