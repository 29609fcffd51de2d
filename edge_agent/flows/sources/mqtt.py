"""An MQTT topic: every message is an inference, acknowledged when all sinks have its result.

The broker keeps the session while the agent is away, so what was published at QoS 1 meanwhile comes when it is back,
and what was not acknowledged comes again: at least once. What was published at QoS 0 is dropped and counted when too
much waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_agent.flow_settings import MqttSourceSettings
from edge_agent.flows.contents import JsonReader, RawReader, Reader, read_oip
from edge_agent.flows.pictures import PictureReader
from edge_agent.flows.ports import Item, Reading, Rejected
from edge_agent.flows.rejects import Rejects
from edge_agent.serving.calls import Described
from edgeloop.protocol.connection import Delivery
from edgeloop.protocol.link import Link

#: Beside the payload, a packet holds the topic (64 KiB at most) and a few numbers.
_PACKET_MARGIN = 66 << 10
#: Messages that may wait beyond those that the broker was asked to send ahead: MQTT 3.1.1 cannot ask.
_MARGIN = 64
STOP_S = 1.0


class Message(NamedTuple):
    """A message that waits for its answer."""

    payload: bytes
    delivery: Delivery


class MqttSource:
    """Implements `edge_agent.flows.ports.Source`.

    Args:
        settings: see docs/reference/flows.md.
        state: folder for what is rejected.
        link: makes a link that is not started, with these options of `Link`.
    """

    live = False

    def __init__(self, settings: MqttSourceSettings, state: Path, link: Callable[..., Link]) -> None:
        self._settings, self._state, self._make_link = settings, state, link
        self._reader: Reader | None = None
        self._link: Link | None = None
        self._rejects: Rejects | None = None
        self._condition = threading.Condition()
        self._waiting: deque[Item] = deque()
        self._number = self._dropped = self._postponed = self._ignored = 0
        self._ask_again = False

    def open(self) -> None:
        """Connect, in the link's own thread, and subscribe."""
        self._reader = self._reader or _reader(self._settings)
        settings = self._settings
        self._rejects = Rejects(self._state)
        self._waiting.clear()
        self._ask_again = False
        self._link = self._make_link(
            manual_ack=True,
            session_s=settings.session_s,
            receive_maximum=settings.ahead,
            max_packet_bytes=settings.max_bytes + _PACKET_MARGIN,
        )
        self._link.subscribe(settings.topic, self._on_message)
        self._link.on_connect(self._on_connect)
        self._link.start()

    def next(self, timeout_s: float) -> Item | None:
        """The oldest message that waits."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._waiting), timeout_s)
            if self._waiting:
                return self._waiting.popleft()
            ask, self._ask_again = self._ask_again, False
        if ask and self._link is not None:
            self._link.reconnect()
        return None

    def read(self, item: Item, described: Described) -> Reading:
        """The payload's tensors."""
        assert self._reader is not None
        message: Message = item.body
        if len(message.payload) > self._settings.max_bytes:
            raise Rejected(f"it has {len(message.payload)} bytes; max_bytes is {self._settings.max_bytes}")
        return self._reader(message.payload, described)

    def done(self, item: Item) -> None:
        """Acknowledge."""
        item.body.delivery()

    def reject(self, item: Item, reason: str) -> None:
        """Note it in ``rejected.jsonl``, and acknowledge: it must not come again."""
        if self._rejects is not None:
            self._rejects.add(item, reason, item.body.payload)
        item.body.delivery()

    def close(self) -> None:
        """Say goodbye; the broker keeps the session."""
        if self._link is not None:
            self._link.stop(STOP_S)
            self._link = None
        if self._rejects is not None:
            self._rejects.close()
            self._rejects = None

    def counts(self) -> Mapping[str, int]:
        """``dropped``: of QoS 0, too much waited; ``postponed``: of QoS 1, asked for again; ``ignored``: retained."""
        return {"dropped": self._dropped, "postponed": self._postponed, "ignored": self._ignored}

    @property
    def trouble(self) -> str:
        """Why there is no broker, or no subscription yet."""
        link = self._link
        if link is None or link.subscribed:
            return ""
        return f"no broker at {link.address}: {link.last_error or 'connecting'}"

    # ── the link's thread ─────────────────────────────────────────────────────────────────────

    def _on_connect(self) -> None:
        """What waited from before and the broker has kept comes again now."""
        if self._link is not None and self._link.session_present:
            with self._condition:
                self._waiting = deque(item for item in self._waiting if item.body.delivery.qos == 0)

    def _on_message(self, topic: str, payload: bytes, delivery: Delivery) -> None:
        if delivery.retained and not self._settings.retained:
            self._ignored += 1
            delivery()
            return
        with self._condition:
            if len(self._waiting) >= self._settings.ahead + (_MARGIN if delivery.qos else 0):
                # Neither kept nor acknowledged. The broker sends it again when it is asked to: at a new connect.
                self._postponed += delivery.qos > 0
                self._dropped += delivery.qos == 0
                self._ask_again = self._ask_again or delivery.qos > 0
                return
            self._number += 1
            self._waiting.append(Item(f"{topic} #{self._number}", {"topic": topic}, Message(payload, delivery)))
            self._condition.notify()


def _reader(settings: MqttSourceSettings) -> Reader:
    match settings.content:
        case "oip":
            return read_oip
        case "json":
            return JsonReader(settings.input, settings.fields)
        case "picture":
            return PictureReader(settings.input, settings.picture)
        case "raw":
            assert settings.tensor is not None
            return RawReader(settings.input, settings.tensor)
