"""A cable between a client and a server on loopback, which a test can cut and mend."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Carry = Callable[[socket.socket, socket.socket], None]


class Cable:
    """Forwards TCP connections from its own port to another one, while it is whole."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.port = 0
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self.mend()

    def mend(self) -> None:
        """Connect again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and take none."""
        with self._lock:  # a connection that is just being made ends here, or is not made
            listener, self._listener = self._listener, None
            ends, self._ends = self._ends, set()
        if listener is not None:
            # close() alone leaves the port listening for as long as the thread sits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for end in ends:
            _shut(end)

    def upward(self, near: socket.socket, far: socket.socket) -> None:
        """Carry what the client sends, until the connection ends."""
        _pump(near, far)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:  # the server is away, and the cable is whole
                near.close()
                continue
            with self._lock:
                if self._listener is listener:
                    self._ends |= {near, far}
                    threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                    continue
            near.close()
            far.close()
            return

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """One connection, to its end."""
        up = threading.Thread(target=_until_it_ends, args=(self.upward, near, far), daemon=True)
        up.start()
        _until_it_ends(_pump, far, near)
        up.join()
        with self._lock:
            self._ends -= {near, far}
        near.close()
        far.close()


def _until_it_ends(carry: Carry, one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        carry(one, other)
    for end in (one, other):
        _shut(end)


def _pump(one: socket.socket, other: socket.socket) -> None:
    while data := one.recv(1 << 16):
        other.sendall(data)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
