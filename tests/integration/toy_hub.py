"""A hub in a few lines: the counting rule of docs/reference/mqtt.md, over a link, with bad luck on demand."""

from __future__ import annotations

import random
import threading
from collections import Counter

from edgeloop.insights import Window, WindowSchema
from edgeloop.protocol import Ack, Insights, Presence, Reported, Topics
from edgeloop.protocol.link import Link

FLEET = "fleet"


class ToyHub:
    """Counts insights exactly once.

    Args:
        port: of the broker, on loopback.
        schema: of every window.
        version: of MQTT, where it is known.

    Attributes:
        bad_luck: share of messages that it never sees, of acknowledgements that it never sends, and of messages that it
            reads twice or late.
    """

    def __init__(self, port: int, schema: WindowSchema, version: int | None = None) -> None:
        self.topics = Topics(FLEET)
        self.schema = schema
        self.bad_luck = 0.0
        self.totals: Counter[str] = Counter()
        self.by_release: Counter[str] = Counter()
        self.marks: dict[tuple[str, int], int] = {}
        self.presence: list[Presence] = []
        self.reported: dict[str, Reported] = {}
        self.gaps = self.duplicates = self.out_of_order = 0
        self._late: list[Insights] = []
        self._random = random.Random(7)
        self._lock = threading.Lock()
        self.link = Link("127.0.0.1", port, "hub", backoff_s=(0.05, 0.3), version=version)
        self.link.subscribe(self.topics.every("insights"), self._on_insights)
        self.link.subscribe(self.topics.every("presence"), self._on_presence)
        self.link.subscribe(self.topics.every("reported"), self._on_reported)
        self.link.start()

    def _unlucky(self) -> bool:
        return self._random.random() < self.bad_luck

    def _on_presence(self, topic: str, data: bytes) -> None:
        self.presence.append(Presence.from_bytes(data))

    def _on_reported(self, topic: str, data: bytes) -> None:
        reported = Reported.from_bytes(data)
        self.reported[reported.device] = reported

    def _on_insights(self, topic: str, data: bytes) -> None:
        message = Insights.from_bytes(data)
        if self._unlucky():
            return
        if self._unlucky():
            self._late.append(message)
            return
        for one in [message, *self._late, *([message] if self._unlucky() else [])]:
            self._take(one)
        self._late.clear()

    def _take(self, message: Insights) -> None:
        with self._lock:
            key = (message.device, message.epoch)
            mark = self.marks.get(key, 0)
            assert message.last <= mark or message.first > mark, "a message straddles what was counted"
            if message.last <= mark:
                self.duplicates += 1
            elif message.first == mark + 1 or message.base == message.first:
                self.gaps += message.first != mark + 1
                self._count(Window.from_wire(message.window, self.schema))
                self.marks[key] = mark = message.last
            else:
                self.out_of_order += 1
        if not self._unlucky():
            self.link.publish(self.topics.ack(message.device), Ack(message.epoch, mark).to_bytes())

    def _count(self, window: Window) -> None:
        self.totals["predictions"] += window.predictions
        self.totals["feedback"] += window.feedback
        self.totals["errors"] += window.errors
        self.by_release[window.release] += window.predictions

    def stop(self) -> None:
        self.link.stop(1.0)
