"""Retained documents reach the broker, whatever it forgets: on each connect, and when one could not be sent at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeloop.protocol.link import Link

_POLL_S = 0.2
#: Between two attempts while the link's queue is full, seconds.
_PAUSE_S = 0.5


class Announcer:
    """A publisher over a link; a retained document that the link does not take is sent with all others later.

    Args:
        link: to the broker.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._due = threading.Event()
        self._sources: list[Callable[[], None]] = []
        # Only a flag: the callback runs in the link's thread, and reading records there would hold up the network.
        link.on_connect(self._due.set)

    def announces(self, source: Callable[[], None]) -> None:
        """Have ``source()`` publish its documents, through this publisher, on each connect."""
        self._sources.append(source)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Send soon, without blocking; False when it cannot be sent now."""
        taken = self._link.publish(topic, payload, qos, retain)
        if retain and not taken:
            self._due.set()
        return taken

    def run(self, stop: threading.Event) -> None:
        """Background work: publish everything whenever it is due."""
        while not stop.is_set():
            if not self._due.wait(_POLL_S) or not self._link.connected:
                stop.wait(_POLL_S)
                continue
            self._due.clear()
            try:
                for source in self._sources:
                    source()
            except BaseException:
                self._due.set()
                raise
            if self._due.is_set():
                stop.wait(_PAUSE_S)
