"""The sender of samples: small ones over MQTT, large ones over HTTP, at a bounded rate, until the hub has them.

Only the hub's own acknowledgement counts, which follows its commit. Sending again is safe: the hub knows the numbers
that it has.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable

from edge_agent.clock import Clock
from edge_agent.hub_upload import NoAnswer, Uploads
from edge_agent.identity import IdentityError
from edge_agent.sampling.store import SamplesError, SampleStore, Waiting
from edge_agent.updates.bandwidth import TokenBucket
from edgeloop.protocol import Ack, ProtocolError
from edgeloop.protocol.link import Link
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

PATH = "/api/v1/samples"
#: Larger messages go over HTTP: a broker holds what it passes on in memory.
MQTT_BYTES = 32 << 10
IN_FLIGHT = 8
ACK_TIMEOUT_S = 10.0
#: After the hub could not take one, it is asked again after so long, and ever less often.
PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
#: What is refused with these will never be taken.
REFUSED = (400, 413, 422)
_LOOK_S = 1.0


@dataclass
class Sent:
    """Since the start: samples that were sent, their bytes, that the hub has acknowledged, and refused for good."""

    sent: int = 0
    sent_bytes: int = 0
    acknowledged: int = 0
    refused: int = 0


class SampleSender:
    """Sends what waits.

    Args:
        store: of samples.
        epoch: of the device's memory.
        link: to the broker.
        topic: of the device's samples.
        hub: gives the hub's base URL.
        tls: gives the context for HTTPS; None: plain HTTP is spoken.
        bytes_per_s: at most; 0: any.
        clock: the device's.
    """

    def __init__(
        self,
        store: SampleStore,
        epoch: int,
        link: Link,
        *,
        topic: str,
        hub: Callable[[], str],
        tls: Callable[[], ssl.SSLContext] | None,
        bytes_per_s: float,
        clock: Clock,
    ) -> None:
        self._store, self._epoch, self._link, self._topic = store, epoch, link, topic
        self._hub, self._tls, self._clock = hub, tls, clock
        self._bucket = TokenBucket(bytes_per_s, clock.monotonic())
        self._lock = threading.Lock()
        self._in_flight: dict[int, float] = {}
        self._after = 0
        self._not_before = 0.0
        self._pause_s = PAUSE_S
        self._uploads: tuple[str, ssl.SSLContext | None, Uploads] | None = None
        self.tally = Sent()
        #: Why nothing is sent, or "".
        self.trouble = ""
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="samples sender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it: what is under way ends first, and nothing is sent after it."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """There is something new; never blocks."""
        self._wake.set()

    def acknowledged(self, ack: Ack) -> None:
        """The hub has samples, or will not have them."""
        if ack.epoch != self._epoch:
            return
        try:
            self.tally.acknowledged += self._store.done(ack.samples)
        except SamplesError as error:
            self.trouble = str(error)
            return
        with self._lock:
            for number in ack.samples:
                self._in_flight.pop(number, None)
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            try:
                self.send_due()
            except SamplesError as error:
                self._failed(str(error))
            except Exception as error:
                log.exception("the sender of samples met an unforeseen error and goes on")
                self._failed(f"{type(error).__name__}: {error}")
        if self._uploads is not None:
            self._uploads[2].close()

    def send_due(self) -> None:
        """Send what may leave now.

        Raises:
            SamplesError: the store cannot be read.
        """
        while not self._stopping and self._link.connected and self._clock.monotonic() >= self._not_before:
            if not (found := self._next()):
                return
            for waiting in found:
                if self._stopping or not self._send(waiting):
                    return

    def _next(self) -> list[Waiting]:
        now = self._clock.monotonic()
        with self._lock:
            if any(due <= now for due in self._in_flight.values()):
                self._in_flight.clear()  # no word of them: they are sent again, in order
                self._after = 0
            room, after = IN_FLIGHT - len(self._in_flight), self._after
        return self._store.waiting(after, room) if room > 0 else []

    def _send(self, waiting: Waiting) -> bool:
        """Send one; returns whether to go on at once."""
        if len(waiting.body) <= MQTT_BYTES:
            with self._lock:  # before it is published: the answer may come before publish returns
                self._in_flight[waiting.number] = self._clock.monotonic() + ACK_TIMEOUT_S
            if not self._link.publish(self._topic, waiting.body):
                with self._lock:
                    self._in_flight.pop(waiting.number, None)
                return False
        elif not self._upload(waiting):
            return False
        with self._lock:
            self._after = max(self._after, waiting.number)
        self.tally.sent += 1
        self.tally.sent_bytes += len(waiting.body)
        self._pause_s, self.trouble = PAUSE_S, ""
        wait_s = self._bucket.take(len(waiting.body), self._clock.monotonic())
        if wait_s > 0:
            self._wait(wait_s)
        return True

    def _upload(self, waiting: Waiting) -> bool:
        try:
            answer = self._opened().post(PATH, waiting.body)
        except (NoAnswer, IdentityError) as error:
            self._failed(str(error))
            return False
        if answer.status in REFUSED:
            log.warning("the hub refuses sample %d: HTTP %d", waiting.number, answer.status)
            self.tally.refused += 1
            self._store.done([waiting.number])
            return True
        try:
            if not answer.taken:
                raise ProtocolError(f"HTTP {answer.status}")
            self.acknowledged(Ack.from_bytes(answer.body))
        except ProtocolError as error:
            self._failed(f"the hub cannot take samples now: {error}")
            return False
        return True

    def _opened(self) -> Uploads:
        """The connection, another one where the hub's address or the device's certificate is another."""
        hub, context = self._hub(), None if self._tls is None else self._tls()
        if self._uploads is None or self._uploads[:2] != (hub, context):
            if self._uploads is not None:
                self._uploads[2].close()
            self._uploads = hub, context, Uploads(hub, context)
        return self._uploads[2]

    def _failed(self, reason: str) -> None:
        if reason != self.trouble:
            log.warning("samples wait: %s", reason)
        self.trouble = reason
        self._not_before = self._clock.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not self._stopping and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
