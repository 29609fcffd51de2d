"""What was published at QoS 1 and the broker has not answered yet; all of it is for any thread."""

from __future__ import annotations

import threading
from collections import deque

from paho.mqtt.client import MQTTMessageInfo


class InFlight:
    """Messages on their way to the broker, bounded in number and bytes, and which of the answered ones it refused."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._lock = threading.Lock()
        self._messages: deque[tuple[MQTTMessageInfo, int]] = deque()
        self._bytes = 0
        self._refused: set[int] = set()

    def has_room(self, size: int) -> bool:
        """Whether one more message of ``size`` bytes may be published."""
        with self._lock:
            self._forget_answered()
            return len(self._messages) < self._most and self._bytes + size <= self._most_bytes

    def add(self, info: MQTTMessageInfo, size: int) -> None:
        """A message was handed to paho."""
        with self._lock:
            self._messages.append((info, size))
            self._bytes += size

    def answered(self, mid: int, *, refused: bool) -> None:
        """The broker has answered the message with this number; told before whoever waits for it goes on."""
        with self._lock:
            # A number is used again: what was refused under it before is no more. And nobody may ask for any of them.
            self._refused.discard(mid)
            if refused and len(self._refused) < self._most:
                self._refused.add(mid)

    def taken(self, info: MQTTMessageInfo) -> bool:
        """Whether the broker has answered a message and taken it; a refusal is told of once."""
        with self._lock:
            refused = info.mid in self._refused
            self._refused.discard(info.mid)
        return info.is_published() and not refused

    @property
    def empty(self) -> bool:
        """Whether everything was answered."""
        with self._lock:
            self._forget_answered()
            return not self._messages

    def _forget_answered(self) -> None:
        """The caller holds the lock."""
        while self._messages and self._messages[0][0].is_published():
            self._bytes -= self._messages.popleft()[1]
