"""Ending the wait of a thread that sleeps in a selector."""

from __future__ import annotations

import contextlib
import socket
import threading


class Waker:
    """Wakes one thread; many calls before it has looked wake it once. `wake` is for any thread.

    Attributes:
        thread: identity of the thread that is woken; a call of its own does nothing. 0: any call wakes.
    """

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._asked = False
        self.thread = 0

    def fileno(self) -> int:
        """What the selector watches."""
        return self._out.fileno()

    def wake(self) -> None:
        """End the thread's wait, or its next one."""
        if self._asked or threading.get_ident() == self.thread:
            return
        self._asked = True
        # A full pipe wakes just as well; a closed one belongs to a connection that has ended.
        with contextlib.suppress(OSError):
            self._in.send(b"\0")

    def look(self) -> None:
        """Say that the thread is about to look for what there is to do: who comes later has to wake it again."""
        self._asked = False

    def swallow(self) -> None:
        """Take out what has ended a wait."""
        with contextlib.suppress(BlockingIOError):
            self._out.recv(4096)

    def close(self) -> None:
        """Wake nobody any more."""
        self._in.close()
        self._out.close()
