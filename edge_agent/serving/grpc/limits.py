"""What keeps one client from taking everything: patience that ends, and memory that is counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from edge_agent.serving.errors import Busy

#: Seconds between two looks at who is late.
LOOK_EVERY_S = 0.5


class Cancellable(Protocol):
    """A call that can be ended."""

    def cancel(self) -> None:
        """End it: whoever waits in it is woken with an error."""


class Patience:
    """Ends calls whose clients take too long to send a request, or to read an answer. One thread looks after all."""

    def __init__(self) -> None:
        """Start looking."""
        self._until: dict[Cancellable, tuple[float, float]] = {}
        self._waiting = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="grpc-patience", daemon=True)
        self._thread.start()

    def expect(self, call: Cancellable, within_s: float, pressed_s: float = float("inf")) -> None:
        """Something has to come of this call's client within so many seconds, or so many while others wait for it."""
        now = time.monotonic()
        with self._lock:
            self._until[call] = now + within_s, now + pressed_s

    def met(self, call: Cancellable) -> None:
        """It has come."""
        with self._lock:
            self._until.pop(call, None)

    @contextlib.contextmanager
    def pressing(self) -> Iterator[None]:
        """Others wait, as long as this lasts."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            now = time.monotonic()
            with self._lock:
                late = [
                    call
                    for call, (until, pressed) in self._until.items()
                    if until < now or (self._waiting and pressed < now)
                ]
                for call in late:
                    del self._until[call]
            for call in late:
                call.cancel()


class Budget:
    """Bytes of the requests that are held at once."""

    def __init__(self, most: int) -> None:
        """Allow so many; a single request is always taken."""
        self._most, self.held = most, 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Hold so many more.

        Raises:
            Busy: together they would be too many.
        """
        with self._lock:
            if self.held and self.held + size > self._most:
                raise Busy(f"requests of {self.held} bytes are under way already; try again in a moment")
            self.held += size

    def give(self, size: int) -> None:
        """Hold so many less."""
        with self._lock:
            self.held -= size
