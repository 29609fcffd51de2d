"""The MQTT client that every program uses: one thread, reconnects for ever, never blocks a publisher.

Version 5 is tried first, since only there a refused publish is visible at once; a broker that speaks 3.1.1 only gets
that. Nothing is kept over a lost connection: what has to arrive is kept by its owner (the device's outbox, the hub's
records) and published again in an ``on_connect`` callback.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edgeloop.protocol.client import Options
from edgeloop.protocol.connection import Callbacks, Connection, Delivery, Outcome
from edgeloop.protocol.routes import Handler, Routes
from edgeloop.records import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counters:
    """Running totals of a link since it was made. Bytes are those of topics and payloads."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0
    """Publishes and subscriptions that the broker refused, as far as its version of MQTT says so."""
    dropped: int = 0
    """Publishes that were not taken: not connected, or the queue was full."""
    failed: int = 0
    """Handlers and callbacks that raised."""
    connections: int = 0
    """Times that a broker accepted the connection."""


class Link:
    """A connection to a broker that is kept up for as long as the program runs.

    Handlers and ``on_connect`` callbacks run in the link's thread, one at a time: they return soon and may publish.

    Args:
        host: the broker's name or address.
        port: the broker's port.
        client_id: unique at the broker; a second client with the same id drives the first one out.
        will: (topic, payload) that the broker publishes, retained, when this client vanishes without a goodbye.
        username: for the broker, or None.
        password: for the broker, or None.
        tls: context for a TLS connection, or a function that gives one for each: a certificate may be renewed
            meanwhile. What it raises is a reason not to be connected. None for plain TCP.
        manual_ack: handlers get a third argument, ``ack``, and the broker's copy of a message is released only when
            it is called, from any thread. At most the broker's in-flight window (Mosquitto: 20) is then delivered
            ahead. A handler that raises, and a message that nobody wants, are acknowledged by the link.
        keepalive_s: seconds of silence after which the broker, or this side, takes the connection for dead.
        max_queued: messages that wait for the broker's acknowledgement, at most.
        max_queued_bytes: bytes that wait for it, at most.
        max_packet_bytes: largest packet that is accepted (told to the broker, MQTT 5 only).
        version: of MQTT, 5 or 4 (which means 3.1.1), where it is known; None tries 5 first and stays with what worked.
        backoff_s: first and longest wait between two attempts, in seconds; each wait is doubled and jittered.
        session_s: seconds for which the broker keeps subscriptions and unacknowledged messages of this client id while
            it is away (3.1.1: for ever); 0 begins anew at each connect.
        receive_maximum: messages that the broker may send ahead of their acknowledgement (MQTT 5 only); 0: its choice.
            A broker that sends more is not read until there are fewer.
        gather_s: seconds that what other threads send waits for what follows it, so that all of it leaves at once. The
            first after a while never waits; 0: nor does any other.
    """

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        manual_ack: bool = False,
        keepalive_s: int = 30,
        max_queued: int = 1000,
        max_queued_bytes: int = 64 << 20,
        max_packet_bytes: int = 17 << 20,
        version: int | None = None,
        backoff_s: tuple[float, float] = (0.2, 15.0),
        session_s: int = 0,
        receive_maximum: int = 0,
        gather_s: float = 0.0,
    ) -> None:
        self._options = Options(
            host=host,
            port=port,
            client_id=client_id,
            will=will,
            username=username,
            password=password,
            tls=tls,
            keepalive_s=keepalive_s,
            max_queued=max_queued,
            max_queued_bytes=max_queued_bytes,
            max_packet_bytes=max_packet_bytes,
            manual_ack=manual_ack,
            session_s=session_s,
            receive_maximum=receive_maximum,
            gather_s=gather_s,
        )
        self._backoff_s = backoff_s
        self._routes = Routes(())
        self._on_connect: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._received = self._received_bytes = 0
        own = ("messages_in", "bytes_in")
        self._totals: dict[str, int] = {name: 0 for name in asdict(Counters()) if name not in own}
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fixed_version = version is not None
        self._version = version or 5
        self.last_error = ""

    # -- the public side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in a thread of its own; returns at once, also when there is no broker."""
        if self._thread is not None:
            raise RuntimeError("this link was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name=f"link:{self._options.client_id}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the broker have what is queued, say goodbye and end the thread, within ``timeout_s`` seconds."""
        until = time.monotonic() + timeout_s
        connection = self._connection
        if connection is not None:
            # A part of the time is kept for the goodbye.
            while connection.accepted and not connection.drained() and time.monotonic() < until - timeout_s / 4:
                time.sleep(0.005)
        self._stopping.set()
        if connection is not None:
            connection.close()
        if self._thread is not None:
            self._thread.join(max(until - time.monotonic(), 0.05))
            if self._thread.is_alive():
                log.warning("the link to %s did not end within %.1f s", self.address, timeout_s)

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Have ``handler`` called for each message on topics that match, now and after every reconnect.

        Several filters may match one message: each of their handlers is called, and with ``manual_ack`` the first
        ``ack`` that is called counts. ``$share/<group>/<filter>`` works as well.
        """
        with self._lock:
            known = any(topic_filter == other for other, _ in self._routes.handlers)
            self._routes = Routes((*self._routes.handlers, (topic_filter, handler)))
        connection = self._connection
        if connection is not None and connection.accepted and not known:
            connection.subscribe([topic_filter])

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called after every (re)connect, when the subscriptions are under way.

        It is called at once, in this thread, when the link is connected now.
        """
        with self._lock:
            self._on_connect.append(callback)
        if self.connected:
            callback()

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Queue one message for the broker; never blocks.

        Returns:
            False when it was not taken: not connected, the queue is full, or the broker takes no packet of that size.
            True means queued: only an answer from the reader of the topic says that it arrived.
        """
        connection = self._connection
        taken = connection is not None and connection.publish(topic, payload, qos, retain)
        if taken:
            self._count(messages_out=1, bytes_out=len(topic.encode()) + len(payload))
        else:
            self._count(dropped=1)
        return taken

    def confirm(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 10.0) -> bool:
        """Publish one message at QoS 1 and wait until the broker has answered; not for the link's own thread.

        Returns:
            Whether the broker has taken it. False also when it took it and the connection was lost before it said so:
            who publishes again then publishes twice.
        """
        connection = self._connection
        taken = connection is not None and connection.confirm(topic, payload, retain, timeout_s)
        if taken:
            self._count(messages_out=1, bytes_out=len(topic.encode()) + len(payload))
        else:
            self._count(dropped=1)
        return taken

    def reconnect(self) -> None:
        """Drop the connection and make another: one that keeps the session sends again what was not acknowledged."""
        connection = self._connection
        if connection is not None:
            connection.close()

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted the connection."""
        connection = self._connection
        return connection is not None and connection.accepted

    @property
    def subscribed(self) -> bool:
        """Whether the broker has accepted the connection and answered every subscription."""
        connection = self._connection
        return connection is not None and connection.accepted and connection.subscribed

    @property
    def packet_limit(self) -> int:
        """Largest packet that the broker takes, bytes, as far as it has said so (MQTT 5); 0: it has not."""
        connection = self._connection
        return 0 if connection is None else connection.packet_limit

    @property
    def session_present(self) -> bool:
        """Whether the broker had kept this client's session: it then sends again what was not acknowledged."""
        connection = self._connection
        return connection is not None and connection.session_present

    @property
    def counters(self) -> Counters:
        """The running totals now."""
        with self._lock:
            return Counters(messages_in=self._received, bytes_in=self._received_bytes, **self._totals)

    @property
    def version(self) -> int:
        """Version of MQTT that is spoken, or tried, now: 5, or 4 for 3.1.1."""
        return self._version

    @property
    def address(self) -> str:
        """The broker's ``host:port``."""
        return f"{self._options.host}:{self._options.port}"

    # -- the link's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            outcome = self._connect_once()
            if self._stopping.is_set():
                return
            if outcome is Outcome.CLOSED:
                failures = 0
            elif outcome is Outcome.WRONG_VERSION and not self._fixed_version:
                self._version = 4 if self._version == 5 else 5
                if self._version == 4:
                    continue
            self._stopping.wait(self._wait_s(failures))
            failures += 1

    def _connect_once(self) -> Outcome:
        connection = Connection(self._options, self._version, Callbacks(self._opened, self._message, self._refused))
        self._connection = connection
        if self._stopping.is_set():
            return Outcome.FAILED
        try:
            outcome = connection.run()
        except Exception:
            # Whatever a broker sends, the link lives on.
            log.exception("the connection to the broker %s failed in an unforeseen way", self.address)
            connection.reason = "an unforeseen error, see the log"
            outcome = Outcome.FAILED
        if not self._stopping.is_set():
            if connection.reason != self.last_error:
                log.warning("broker %s: %s; trying again", self.address, connection.reason)
            self.last_error = connection.reason
        return outcome

    def _wait_s(self, failures: int) -> float:
        first, longest = self._backoff_s
        wait = min(first * 2.0 ** min(failures, 30), longest)
        # Half fixed, half random: a fleet that lost its broker does not come back in one moment.
        return wait * (0.5 + 0.5 * random.random())

    def _opened(self) -> None:
        self._count(connections=1)
        self.last_error = ""
        log.info("connected to the broker %s with MQTT %s", self.address, "5" if self._version == 5 else "3.1.1")
        connection = self._connection
        with self._lock:
            filters = list(dict.fromkeys(topic_filter for topic_filter, _ in self._routes.handlers))
            callbacks = list(self._on_connect)
        if connection is not None:
            connection.subscribe(filters)
        for callback in callbacks:
            self._guarded("connecting", callback)

    def _message(self, topic: str, payload: bytes, delivery: Delivery) -> None:
        self._received += 1  # by this thread alone, and so without a lock
        self._received_bytes += len(topic.encode()) + len(payload)
        manual = self._options.manual_ack
        wanted = self._routes.of(topic)
        for topic_filter, handler in wanted:
            arguments = (topic, payload, delivery) if manual else (topic, payload)
            if not self._guarded(topic_filter, handler, *arguments) and manual:
                delivery()
        if manual and not wanted:
            delivery()

    def _refused(self, what: str) -> None:
        self._count(refused=1)
        log.warning("broker %s: %s; check the broker's access rules", self.address, what)

    def _guarded(self, what: str, function: Callable[..., None], *arguments: Any) -> bool:
        try:
            function(*arguments)
        except Exception:
            self._count(failed=1)
            log.exception("what is called for %s raised; the link goes on", what)
            return False
        return True

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, by in more.items():
                self._totals[name] += by
