"""From a device's message to a sample that is kept, and the acknowledgement by which the device lets go of its own.

What the channel's owner does not ask for is not kept, whoever sends it: it is acknowledged all the same, so that the
device does not go on sending. Only where there is no room is there no answer, and the device sends again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from sqlalchemy.exc import SQLAlchemyError

from cloud_hub.channels import Channels
from cloud_hub.errors import NotFound, StorageFull
from cloud_hub.inbox import Inbox, Incoming
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Quarantine, Reason, Refusal
from cloud_hub.records.database import Database
from cloud_hub.samples.store import SampleStore
from edgeloop.protocol import Ack, ProtocolError, Sample, Topics

log = logging.getLogger(__name__)

Classes = Callable[[str], tuple[tuple[str, ...], int]]
"""(names, number) of a release's classes; raises `NotFound`."""

_TAKE_S = 0.2
_READ_AT_ONCE = 16
#: Messages that wait to be read; devices send again.
MOST_WAITING, MOST_WAITING_BYTES = 512, 64 << 20


class Intake:
    """Takes samples.

    Args:
        db: the records.
        store: keeps them.
        quarantine: keeps messages that are none.
        channels: what their owners ask for.
        classes: of releases.
        topics: of the fleet.
        publisher: sends acknowledgements.
        may_follow: whether a device may follow a channel.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        store: SampleStore,
        quarantine: Quarantine,
        channels: Channels,
        classes: Classes,
        topics: Topics,
        publisher: Publisher,
        *,
        may_follow: Callable[[str, str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._store, self._quarantine = db, store, quarantine
        self._channels, self._classes, self._topics, self._publisher = channels, classes, topics, publisher
        self._may_follow, self._clock = may_follow, clock
        self.inbox = Inbox(MOST_WAITING, most_bytes=MOST_WAITING_BYTES)
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()

    def submit(self, topic: str, payload: bytes, release: Callable[[], None] = lambda: None) -> None:
        """Take a message from the network's thread; never waits."""
        release()  # a device goes by our own acknowledgement alone
        try:
            device = self._topics.parse(topic).device
        except ProtocolError:
            device = None
        if device is None or not self.inbox.put(Incoming("samples", device, payload, self._clock())):
            self._note("dropped")

    def run(self, stop: threading.Event) -> None:
        """Background work: keep what has come over MQTT."""
        while not stop.is_set():
            for message in self.inbox.take(_READ_AT_ONCE, _TAKE_S):
                try:
                    self._read(message)
                except (StorageFull, SQLAlchemyError) as error:
                    self._note("failed")
                    log.warning("a sample of %s is not kept, and is sent again: %s", message.device, error)
                except Exception:
                    self._note("failed")
                    log.exception("a sample of %s is not kept", message.device)

    def take(self, sample: Sample) -> Ack:
        """Keep a sample, or have its device let go of it.

        Args:
            sample: whoever calls has checked that it comes from the device that it names.

        Raises:
            StorageFull: there is no room now.
        """
        refused = self._refused(sample)
        label = None if refused else self._label(sample)
        if refused:
            self._note("refused")
            log.info("a sample of %s is not kept: %s", sample.device, refused)
        elif not sample.tensors:
            known = label is not None and self._store.feedback(sample.device, sample.id, sample.index, label)
            self._note("labels" if known else "unknown")
        else:
            policy = self._channels.get(sample.channel).policy.samples
            self._note("kept" if self._store.add(sample, label, policy.keep_s) else "repeated")
        return Ack(sample.epoch, 0, (), (sample.number,))

    @property
    def totals(self) -> Mapping[str, int]:
        """Samples by what became of them since the start."""
        with self._lock:
            return dict(self._totals)

    def _read(self, message: Incoming) -> None:
        try:
            sample = Sample.from_bytes(message.payload)
        except ProtocolError as error:
            self._refuse(message, "malformed", str(error))
            return
        if sample.device != message.device:
            detail = f"the message names {sample.device!r}, its topic {message.device!r}"
            self._refuse(message, "wrong-device", detail)
            return
        ack = self.take(sample)
        self._publisher.publish(self._topics.ack(message.device), ack.to_bytes(), qos=0)

    def _refuse(self, message: Incoming, reason: Reason, detail: str) -> None:
        self._note("quarantined")
        # Of an input that nobody can read nothing is kept: it may be what should have left no device.
        refusal = Refusal(message.device, message.kind, reason, detail, message.received, b"")
        with self._db.begin() as connection:
            self._quarantine.add(connection, [refusal])

    def _refused(self, sample: Sample) -> str:
        """Why it is not kept, or ""."""
        channel = self._channels.find(sample.channel)
        if channel is None or not self._may_follow(sample.device, sample.channel):
            return f"there is no channel {sample.channel!r} that the device may follow"
        policy = channel.policy.samples
        if not policy.strategies:
            return f"the channel {channel.name} asks for no samples"
        if sample.tensors and sample.form != policy.travels:
            return f"the channel {channel.name} asks for the form {policy.travels}, not {sample.form!r:.30}"
        try:
            for tensor in sample.tensors.values():
                tensor.row()
        except ProtocolError as error:
            return f"it cannot be read: {error}"
        return ""

    def _label(self, sample: Sample) -> int | None:
        """The class index of a sample's label; None where it has none, or one that is none of the release's."""
        if sample.label is None:
            return None
        try:
            names, count = self._classes(sample.release)
        except NotFound:
            return None
        return class_index(sample.label, names, count)

    def _note(self, what: str) -> None:
        with self._lock:
            self._totals[what] += 1


def class_index(label: int | str, names: tuple[str, ...], count: int) -> int | None:
    """The class index that a label means, or None: it means none."""
    if isinstance(label, str):
        return names.index(label) if label in names else None
    return label if 0 <= label < count else None
