"""One MQTT connection from connect to disconnect: paho-mqtt's protocol machine, our own wire and small loop.

paho's own threads are not used: they end silently when a broker sends what paho cannot parse, write to the socket from
the publisher's thread, and select() fails beyond 1,024 open files, which a hub has. paho documents this way for
external event loops (``loop_read``, ``loop_write``, ``loop_misc``). See ``docs/decisions/mqtt-link.md``.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgeloop.protocol.client import CONNECT_TIMEOUT_S, Options, WiredClient, why
from edgeloop.protocol.in_flight import InFlight
from edgeloop.protocol.waking import Waker
from edgeloop.protocol.wire import Wire
from edgeloop.records import dataclass

# aMQTT 0.12 reads the properties of a version 5 CONNECT as the client id and then waits for more bytes without a word.
FIRST_ANSWER_S = 2.0
#: What is published gathers when less than so many times the gathering's own time has passed since what went before.
QUIET = 2.0
_POLL_S = 0.5
_REST_S = 5.0
_UNSUPPORTED_VERSION = 132
_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS


class Delivery:
    """The broker's delivery of one message; calling it acknowledges the message, once, from whichever thread.

    Attributes:
        qos: that it was delivered with; at 0 there is nothing to acknowledge, and it does not come again.
        retained: whether it was sent because it was retained, rather than because it was published just now.
    """

    __slots__ = ("_acknowledge", "_mid", "qos", "retained")

    def __init__(self, acknowledge: Callable[[int], None] | None, mid: int, qos: int, retained: bool) -> None:
        self._acknowledge, self._mid = acknowledge, mid
        self.qos, self.retained = qos, retained

    def __call__(self) -> None:
        """Acknowledge."""
        acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge(self._mid)


@dataclass(frozen=True)
class Callbacks:
    """Whom a connection tells; all are called from the thread that runs it."""

    opened: Callable[[], None]
    message: Callable[[str, bytes, Delivery], None]
    refused: Callable[[str], None]


class Outcome(Enum):
    """How a connection ended."""

    CLOSED = "closed"
    """It was accepted and has ended."""
    WRONG_VERSION = "wrong version"
    """The broker refused this version of MQTT, or took the connection and then hung up or kept silent."""
    FAILED = "failed"
    """It never came about."""


class Connection:
    """One connection. ``run`` serves it until it ends; ``publish``, ``subscribe`` and ``close`` are for any thread."""

    def __init__(self, options: Options, version: int, callbacks: Callbacks) -> None:
        self._options = options
        self._callbacks = callbacks
        self._version = version
        self._in_flight = InFlight(options.max_queued, options.max_queued_bytes)
        self.packet_limit = 0
        self._waker = Waker()
        # Whoever has it reads or writes. A publisher that finds it free writes at once: waking the loop's thread takes
        # longer than all the rest on a busy machine.
        self._turn = threading.Lock()
        self._published_at = 0.0
        self._handed_out = 0
        self._closing = False
        self._outcome = Outcome.FAILED
        self.accepted = self.session_present = False
        # Whether the broker has answered every subscription; before, what is published may be nobody's.
        self.subscribed, self._subscribing = False, 0
        self.reason = ""
        self._client = self._make_client(options)

    def run(self) -> Outcome:
        """Connect and serve until the connection ends; ``reason`` then says why."""
        options = self._options
        self._waker.thread = threading.get_ident()
        try:
            self._client.open()
            if self._closing:  # somebody has asked for it meanwhile, when there was nothing to close
                self._client.disconnect()
            self._serve()
        except (OSError, ValueError) as error:
            self.reason = self.reason or f"{options.host}:{options.port}: {why(error)}"
        finally:
            self.accepted = False
            self._abandon()
        return self._outcome

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        """Queue one message; False when it cannot be taken now."""
        if qos:
            return self._publish(topic, payload, qos, retain) is not None
        wire, options, coded = self._client.wire, self._options, topic.encode()
        if wire is None or not self.accepted or not self._fits(len(coded) + len(payload)):
            return False
        most, most_bytes = options.max_queued, options.max_queued_bytes
        taken = wire.publish(coded, payload, retain=retain, most=most, most_bytes=most_bytes)
        self._push()
        return taken

    def _fits(self, size: int) -> bool:
        return not self.packet_limit or size + 64 <= self.packet_limit

    def _publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> MQTTMessageInfo | None:
        size = len(topic) + len(payload)
        if not self.accepted or not self._fits(size) or not self._in_flight.has_room(size):
            return None
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != _SUCCESS:
            return None
        self._in_flight.add(info, size)
        self._push()
        return info

    def confirm(self, topic: str, payload: bytes, retain: bool, timeout_s: float) -> bool:
        """Publish at QoS 1 and wait; True when the broker has taken the message. Not for the thread that runs this."""
        info = self._publish(topic, payload, 1, retain)
        if info is None:
            return False
        until = time.monotonic() + timeout_s
        while not info.is_published() and self.accepted and time.monotonic() < until:
            info.wait_for_publish(_POLL_S)
        return self._in_flight.taken(info)  # a lost connection never confirms

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for topics at QoS 1."""
        if filters:
            self._subscribing += 1
            self.subscribed = False
            self._client.subscribe([(topic_filter, 1) for topic_filter in filters])
            self._waker.wake()

    def drained(self) -> bool:
        """Whether the broker has acknowledged all that was published."""
        wire = self._client.wire
        return self._in_flight.empty and (wire is None or not wire.waits)

    def close(self) -> None:
        """Say goodbye: the broker does not publish the will."""
        self._closing = True
        self._client.disconnect()
        self._waker.wake()

    def _make_client(self, options: Options) -> WiredClient:
        client = WiredClient(options, self._version, self._received)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    # -- the loop -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        client, wire = self._client, self._client.wire
        if wire is None:
            return
        answer_until = time.monotonic() + (FIRST_ANSWER_S if self._version == 5 else CONNECT_TIMEOUT_S)
        with selectors.DefaultSelector() as selector:
            selector.register(wire, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            watched = selectors.EVENT_READ
            reading = True
            while client.socket() is not None:  # it is the wire
                if not self.accepted and not self._closing and time.monotonic() > answer_until:
                    self.reason = "the broker took the connection and did not answer"
                    self._outcome = Outcome.WRONG_VERSION
                    return
                with self._turn:
                    if not self._write(wire):
                        return
                    reading = not self._holds_too_many(wire)
                    wanted = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if wire.waits else 0)
                    patience_s = 0.0 if reading and wire.pending else self._patience_s()
                if watched != wanted:
                    self._watch(selector, wire, wanted)
                    watched = wanted
                ready = selector.select(patience_s)
                if any(key.fileobj is self._waker for key, _ in ready):
                    if self._options.gather_s:
                        time.sleep(self._options.gather_s)
                    self._waker.swallow()
                with self._turn:
                    if (reading and not self._read(wire)) or client.loop_misc() != _SUCCESS:
                        return

    def _holds_too_many(self, wire: Wire) -> bool:
        """Whether the broker has sent more ahead than it was told to: Mosquitto 2.0.11 does so after the first answer.

        What is not read then waits at the broker, which bounds it. An acknowledgement wakes the loop.
        """
        most = self._options.receive_maximum
        return bool(most) and self._handed_out - wire.acknowledged > most

    def _watch(self, selector: selectors.BaseSelector, wire: Wire, events: int) -> None:
        """A selector takes no empty set of events."""
        with contextlib.suppress(KeyError):
            selector.unregister(wire)
        if events:
            selector.register(wire, events)

    def _read(self, wire: Wire) -> bool:
        """Take in what has come, and let paho read its part of it; False when the connection is lost."""
        wire.fill()
        while wire.has_packets:
            if self._client.loop_read() != _SUCCESS:
                return False
            wire.take()
        return True

    def _write(self, wire: Wire) -> bool:
        """Let paho write to the wire, and the wire to the network; False when the connection is lost."""
        self._waker.look()
        if self._client.want_write() and self._client.loop_write() != _SUCCESS:
            return False
        wire.flush()
        return self._client.socket() is not None  # a goodbye that is written closes it

    def _patience_s(self) -> float:
        """How long to wait for what wakes the loop anyway; longer once all that is left is to keep the line alive."""
        return min(_REST_S, self._options.keepalive_s / 4) if self.accepted else _POLL_S

    def _push(self) -> None:
        """Have what was published sent: now and by this thread where the line is quiet, else with what follows it."""
        now, options, wire = time.monotonic(), self._options, self._client.wire
        quiet = now - self._published_at >= QUIET * options.gather_s
        self._published_at = now
        if threading.get_ident() == self._waker.thread:
            return  # it writes when it has read
        if wire is not None and quiet and not self._closing and self._turn.acquire(blocking=False):
            try:
                done = self._write(wire) and not wire.waits
            finally:
                self._turn.release()
            if done:
                return
        self._waker.wake()

    def _abandon(self) -> None:
        with self._turn:
            watched = self._client.socket()
            if watched is not None:
                watched.close()
        self._waker.close()

    # -- paho's callbacks -----------------------------------------------------------------------------------------

    def _on_connect(
        self, _client: Client, _data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.reason = f"the broker refused the connection: {reason}"
            if self._version == 5 and reason.value == _UNSUPPORTED_VERSION:
                self._outcome = Outcome.WRONG_VERSION
            return
        self.packet_limit = getattr(properties, "MaximumPacketSize", 0)
        self._outcome = Outcome.CLOSED
        self.session_present = bool(flags.session_present)
        self.accepted = True
        self._callbacks.opened()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self.accepted or not self.reason:
            self.reason = "closed" if self._closing else f"the connection was lost: {reason}"
        if self._outcome is Outcome.FAILED and not self.accepted and not self._closing:
            # TCP was there, MQTT was not: some brokers hang up on a version that they do not speak.
            self._outcome = Outcome.WRONG_VERSION if self.reason.startswith("the connection") else Outcome.FAILED
        self.accepted = False

    def _received(self, coded: bytes, payload: bytes, mid: int, qos: int, retained: bool) -> None:
        """A message at QoS 0 or 1, from the wire."""
        try:
            topic = str(coded, "utf-8")
        except UnicodeDecodeError:
            if qos:
                self._acknowledge(mid)
            self._callbacks.refused("a message on a topic that is not UTF-8 was dropped")
            return
        self._handed_out += qos
        self._callbacks.message(topic, payload, Delivery(self._acknowledge if qos else None, mid, qos, retained))
        if qos and not self._options.manual_ack:
            self._acknowledge(mid)

    def _acknowledge(self, mid: int) -> None:
        wire = self._client.wire
        if wire is not None:
            wire.acknowledge(mid)
            self._waker.wake()

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        """A message at QoS 2, or with something about it that the wire does not read."""
        qos = message.qos

        def acknowledge(mid: int) -> None:
            client.ack(mid, qos)
            self._waker.wake()

        try:
            topic = message.topic
        except UnicodeDecodeError:
            acknowledge(message.mid)
            self._callbacks.refused("a message on a topic that is not UTF-8 was dropped")
            return
        self._callbacks.message(topic, bytes(message.payload), Delivery(acknowledge, message.mid, qos, message.retain))

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._in_flight.answered(mid, refused=reason.is_failure)
        if reason.is_failure:
            self._callbacks.refused(f"the broker refused a publish: {reason}")

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        self._subscribing -= 1
        self.subscribed = self._subscribing == 0
        for reason in reasons:
            if reason.is_failure:
                self._callbacks.refused(f"the broker refused a subscription: {reason}")
