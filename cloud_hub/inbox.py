"""The bounded buffer between the network's thread and the one that commits: no device can fill it for the others."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

#: Kinds of which only the newest counts: a newer one takes the place of one that waits.
LATEST_ONLY = ("presence", "reported")


def _nothing() -> None:
    """For messages that nobody waits for."""


class Incoming(NamedTuple):
    """One message as it came.

    Attributes:
        kind: presence, reported or insights; or ``reset``: what presence said before is no longer known.
        device: the device that the topic names.
        payload: as it came.
        received: unix seconds.
        release: tells the broker that the message was dealt with; callable from any thread.
    """

    kind: str
    device: str
    payload: bytes
    received: float
    release: Callable[[], None] = _nothing


class Inbox:
    """Messages in order of arrival.

    Args:
        most: messages that wait, at most.
        most_each: messages of one device that wait, at most.
        most_bytes: bytes of payloads that wait, at most.
    """

    def __init__(self, most: int, *, most_each: int | None = None, most_bytes: int = 64 << 20) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._most_each = most_each if most_each is not None else max(16, most // 16)
        self._queue: deque[tuple[str, str, int] | Incoming] = deque()
        self._latest: dict[tuple[str, str, int], Incoming] = {}
        self._resets = 0
        self._each: Counter[str] = Counter()
        self._bytes = 0
        self._filled = threading.Condition()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> float | None:
        """When the message that waits longest was received, unix seconds; None when nothing waits."""
        with self._filled:
            if not self._queue:
                return None
            entry = self._queue[0]
            return (entry if isinstance(entry, Incoming) else self._latest[entry]).received

    def put(self, message: Incoming) -> bool:
        """Take a message; False, without waiting, when there is no room for it."""
        kind, device, size = message.kind, message.device, len(message.payload)
        with self._filled:
            if kind == "reset":
                self._resets += 1  # what comes from now on must not take a place before the reset
            key = (kind, device, self._resets)
            older = self._latest.get(key) if kind in LATEST_ONLY else None
            if older is not None:
                size -= len(older.payload)
            elif kind != "reset" and (len(self._queue) >= self._most or self._each[device] >= self._most_each):
                return False
            if self._bytes + size > self._most_bytes:
                return False
            self._bytes += size
            if kind in LATEST_ONLY:
                self._latest[key] = message
            if older is not None:
                older.release()
                return True
            self._queue.append(key if kind in LATEST_ONLY else message)
            self._each[device] += 1
            self._filled.notify()
            return True

    def take(self, most: int, timeout_s: float) -> list[Incoming]:
        """The oldest messages, at most ``most``; waits up to ``timeout_s`` for the first."""
        with self._filled:
            if not self._queue:
                self._filled.wait(timeout_s)
            taken: list[Incoming] = []
            while self._queue and len(taken) < most:
                entry = self._queue.popleft()
                message = entry if isinstance(entry, Incoming) else self._latest.pop(entry)
                self._bytes -= len(message.payload)
                self._each[message.device] -= 1
                if not self._each[message.device]:
                    del self._each[message.device]
                taken.append(message)
            return taken
