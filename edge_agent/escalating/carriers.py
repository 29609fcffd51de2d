"""How escalations leave: small ones over MQTT, large ones over HTTP, the same bytes."""

from __future__ import annotations

import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence

from edge_agent.hub_upload import NoAnswer, Uploads
from edge_agent.identity import IdentityError
from edgeloop.protocol import Answers, ProtocolError, TeacherAnswer
from edgeloop.protocol.link import Link
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

PATH = "/api/v1/escalations"
#: More than this would keep the windows' and the updates' messages waiting behind it.
MQTT_BYTES = 64 << 10
#: Uploads at once, and those that may wait for one of them; what is more does not leave.
UPLOADS, WAITING_UPLOADS = 4, 32
#: The hub answers that it has taken it, or what the teacher says, whichever comes first; a client waits less.
UPLOAD_S = 60.0
#: Of a slow teacher the hub says at the client's deadline that its answer comes over MQTT; it gets so much longer for
#: that, seconds: else what has left would count as unsent.
TAKEN_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of one message.

    Attributes:
        left: whether the hub, or the broker, has it.
        answers: that came back at once.
        reason: why it has not left.
    """

    left: bool
    answers: Sequence[TeacherAnswer] = ()
    reason: str = ""


Told = Callable[[Outcome], None]


@dataclass
class _Parcel:
    payload: bytes
    timeout_s: float
    told: Told


@dataclass
class Hub:
    """Where large messages go: a base URL, and for https the context that shows the device's certificate."""

    url: str
    context: ssl.SSLContext | None = None


class Carriers:
    """The ways to the hub. Threads for uploads start with the first of them.

    Args:
        link: to the broker.
        topic: of the device's escalations.
        hub: the hub as it is reached now; raises IdentityError.
    """

    def __init__(self, link: Link, topic: str, hub: Callable[[], Hub]) -> None:
        self._link, self._topic, self._hub = link, topic, hub
        self._parcels: deque[_Parcel] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False

    @property
    def connected(self) -> bool:
        """Whether the broker is there; where it is not, the hub is not either."""
        return self._link.connected

    def send(self, payload: bytes, timeout_s: float | None, told: Told) -> None:
        """Send one message; never blocks.

        Args:
            payload: the message.
            timeout_s: seconds that somebody waits for the answer; None: nobody does.
            told: called once, from this thread or another one.
        """
        limit = self._link.packet_limit
        if len(payload) <= MQTT_BYTES and (not limit or len(payload) + len(self._topic) + 64 <= limit):
            left = self._link.publish(self._topic, payload)
            told(Outcome(left, reason="" if left else "the broker does not take it"))
            return
        with self._changed:
            full = len(self._parcels) >= WAITING_UPLOADS or self._stopping
            if not full:
                self._parcels.append(_Parcel(payload, UPLOAD_S if timeout_s is None else timeout_s + TAKEN_S, told))
                if not self._idle and len(self._threads) < UPLOADS:
                    thread = threading.Thread(target=self._work, name="escalation upload", daemon=True)
                    self._threads.append(thread)
                    thread.start()
                self._changed.notify()
        if full:
            told(Outcome(False, reason="too many uploads wait already"))

    def stop(self) -> None:
        """Begin no further upload."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _work(self) -> None:
        uploads: tuple[Hub, Uploads] | None = None
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._parcels or self._stopping)
                self._idle -= 1
                if self._stopping:
                    return
                parcel = self._parcels.popleft()
            try:
                hub = self._hub()
                if uploads is None or (hub.url, hub.context) != (uploads[0].url, uploads[0].context):
                    uploads = hub, Uploads(hub.url, hub.context)
                outcome = _outcome(uploads[1], parcel)
            except (NoAnswer, IdentityError, ProtocolError) as error:
                outcome = Outcome(False, reason=str(error))
            except Exception as error:
                log.exception("an upload failed for an unforeseen reason")
                outcome = Outcome(False, reason=f"{type(error).__name__}: {error}")
            parcel.told(outcome)


def _outcome(uploads: Uploads, parcel: _Parcel) -> Outcome:
    found = uploads.post(PATH, parcel.payload, timeout_s=parcel.timeout_s)
    if not found.taken:
        return Outcome(False, reason=f"the hub answers with HTTP {found.status}")
    # Without a body it was taken, and the answer comes over MQTT.
    return Outcome(True, Answers.from_bytes(found.body).escalated if found.status == 200 else ())
