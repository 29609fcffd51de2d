"""From the network into the records: decode → drop what is counted → merge → one transaction → acknowledge.

Rules:

1. A window, its mark and the device's totals change in **one** transaction; the acknowledgement follows the commit.
   So after a crash at any moment a window is either counted and marked, or neither, and the device sends it again.
2. What was counted is not counted again (``cloud_hub.delivery``).
3. Nothing that a device sends holds up another device, nor its own next window: what cannot be counted goes into
   quarantine with its reason, and its number is passed.
4. The network's thread never waits: without room a message is dropped, and the device sends it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from cloud_hub.delivery import judge
from cloud_hub.devices import Devices
from cloud_hub.inbox import Inbox, Incoming
from cloud_hub.insights_store import Additions, InsightStore, class_counts, count_window
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Quarantine, Reason, Refusal
from cloud_hub.records.counters import DEVICE_COUNTS, add_counts, add_lists
from cloud_hub.records.database import Database
from cloud_hub.records.tables import device_totals, marks
from cloud_hub.records.tables import devices as devices_table
from edgeloop.insights import InsightsError, Window
from edgeloop.protocol import Ack, Insights, Presence, ProtocolError, Reported, Topics
from edgeloop.protocol.topics import DeviceKind

log = logging.getLogger(__name__)

KINDS: tuple[DeviceKind, ...] = ("presence", "reported", "insights")
#: Wait after a transaction that failed (a full disk), seconds: devices send again meanwhile.
FAILURE_PAUSE_S = 1.0
_TAKE_S = 0.2
#: A device can claim any number; the sum of gaps has to stay a 64-bit integer.
MAX_GAP = 1 << 31

Key = tuple[str, int]
"""Device and epoch."""

M = TypeVar("M", Presence, Reported, Insights)

Observed = Callable[[str, str, Window], None]
"""``observed(device, channel, window)``: see `Ingest.observes`."""


class MarksMoved(Exception):
    """Another process moved a mark between our reading and our writing; the batch is judged anew."""


#: The next try may succeed: nothing is acknowledged, so devices send again.
TRANSIENT = (SQLAlchemyError, MarksMoved, OSError)


@dataclass
class Batch:
    """What one transaction is going to write, gathered in memory."""

    now: float
    marks_before: Mapping[Key, int]
    skews: dict[str, float]
    marks: dict[Key, int] = field(default_factory=dict)
    acks: dict[Key, list[int]] = field(default_factory=dict)
    additions: Additions = field(default_factory=Additions)
    presence: dict[str, Presence] = field(default_factory=dict)
    reported: dict[str, Reported] = field(default_factory=dict)
    contacts: dict[str, None] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    observed: list[tuple[str, str, Window]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    reset: bool = False

    def mark(self, key: Key) -> int | None:
        """The mark as this batch leaves it."""
        return self.marks.get(key, self.marks_before.get(key))

    def count(self, device: str, counts: Mapping[str, int]) -> None:
        """Add to a device's totals."""
        self.counts.setdefault(device, Counter()).update(counts)

    def refuse(self, message: Incoming, reason: Reason, detail: str) -> None:
        """Put a message into quarantine."""
        self.refusals.append(Refusal(message.device, message.kind, reason, detail, message.received, message.payload))
        self.count(message.device, {"quarantined": 1})
        self.tally["quarantined"] += 1


class Ingest:
    """The pipeline.

    Args:
        db: the records.
        devices: notes presence and reports.
        insights: merges windows.
        quarantine: keeps what cannot be counted.
        topics: of the fleet.
        publisher: sends acknowledgements.
        known_channel: whether the hub has a channel of this name.
        queue: messages that wait in memory, at most.
        batch: messages in one transaction, at most.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        devices: Devices,
        insights: InsightStore,
        quarantine: Quarantine,
        topics: Topics,
        publisher: Publisher,
        *,
        known_channel: Callable[[str], bool],
        queue: int = 4096,
        batch: int = 256,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._devices, self._insights, self._quarantine = db, devices, insights, quarantine
        self._topics, self._publisher, self._known_channel = topics, publisher, known_channel
        self._batch_size, self._clock = batch, clock
        self.inbox = Inbox(queue)
        self._observers: list[Observed] = []
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()

    def observes(self, observed: Observed) -> None:
        """Have ``observed(device, channel, window)`` called after each commit, for what was counted in it.

        A window is one that the device sent, or the sum of several of one release and segment that were committed
        together. It is called from the thread that ingests: what takes long holds up the acknowledgements. A hub that
        is killed between a commit and the call does not call again. One that raises is logged and changes nothing.
        """
        self._observers.append(observed)

    def submit(self, topic: str, payload: bytes, release: Callable[[], None] = lambda: None) -> None:
        """Take a message from the network's thread; never waits.

        Args:
            topic: as it came; what is none of the fleet's device topics is dropped and counted.
            payload: as it came.
            release: tells the broker that the message was dealt with.
        """
        try:
            address = self._topics.parse(topic)
        except ProtocolError:
            address = None
        if address is None or address.device is None or address.kind not in KINDS:
            self._add({"foreign": 1})
            release()
        elif not self.inbox.put(Incoming(address.kind, address.device, payload, self._clock(), release)):
            self._add({"dropped": 1})
            release()

    def connected(self) -> None:
        """Note a new connection to the broker: who is online is told again now, and nobody else is."""
        self.inbox.put(Incoming("reset", "", b"", self._clock()))

    def run(self, stop: threading.Event) -> None:
        """Background work: commit batches until ``stop``, then what is left in the inbox."""
        while not stop.is_set():
            if not self.step(_TAKE_S):
                stop.wait(FAILURE_PAUSE_S)
        for _ in range(0, len(self.inbox), self._batch_size):  # not what comes meanwhile: devices keep that
            if not self.step(0.0):
                return

    def step(self, timeout_s: float) -> bool:
        """Deal with the next batch; False when the records could not be written."""
        messages = self.inbox.take(self._batch_size, timeout_s)
        if not messages:
            return True
        try:
            self.process(messages)
        except TRANSIENT as error:
            self._add({"failed": len(messages)})
            log.error("a batch of %d messages was not committed; devices send again: %s", len(messages), error)
            return False
        finally:
            for message in messages:
                message.release()
        return True

    def process(self, messages: list[Incoming]) -> None:
        """Commit messages in one transaction and acknowledge them; raises one of `TRANSIENT` when that fails."""
        try:
            self._commit(messages)
        except TRANSIENT:
            raise
        except Exception:
            # A defect of ours must not stop the others' windows: one by one, and the one that fails is set aside.
            log.exception("a batch failed; its %d messages are tried one by one", len(messages))
            for message in messages:
                self._commit_alone(message)

    @property
    def totals(self) -> dict[str, int]:
        """Messages by what became of them since the start: apply, duplicate, early, quarantined, dropped and so on."""
        with self._lock:
            return dict(self._totals)

    # -- one transaction ------------------------------------------------------------------------------------------

    def _commit(self, messages: list[Incoming]) -> None:
        batch = self._gather(messages)
        with self._db.begin() as connection:
            self._write(connection, batch)
        self._add(batch.tally)
        self._tell_observers(batch)
        for (device, epoch), refused in batch.acks.items():
            last = batch.mark((device, epoch)) or 0
            ack = Ack(epoch=epoch, last=last, refused=tuple(refused[:1000]))
            self._publisher.publish(self._topics.ack(device), ack.to_bytes())

    def _tell_observers(self, batch: Batch) -> None:
        for observed in self._observers:
            for device, channel, window in batch.observed:
                try:
                    observed(device, channel, window)
                except Exception:  # it is committed: the device must not send it again
                    log.exception("an observer of the windows of %s failed", device)

    def _commit_alone(self, message: Incoming) -> None:
        try:
            self._commit([message])
        except TRANSIENT:
            raise
        except Exception as error:
            log.exception("a message of %s is set aside", message.device)
            batch = self._empty([message])
            self._set_aside(batch, message, error)
            with self._db.begin() as connection:
                self._write(connection, batch)
            self._add(batch.tally)

    def _set_aside(self, batch: Batch, message: Incoming, error: Exception) -> None:
        batch.refuse(message, "internal", f"{type(error).__name__}: {error}")
        if message.kind == "insights":
            try:
                envelope = Insights.from_bytes(message.payload)
            except ProtocolError:
                return
            key = (message.device, envelope.epoch)
            if judge(batch.mark(key), envelope.first, envelope.last, envelope.base).action in ("apply", "overlap"):
                batch.marks[key] = envelope.last

    def _empty(self, messages: Iterable[Incoming]) -> Batch:
        names = {message.device for message in messages}
        with self._db.read() as connection:
            known = connection.execute(select(marks).where(marks.c.device.in_(names))).all()
            skews = connection.execute(
                select(devices_table.c.device, devices_table.c.clock_skew_s).where(devices_table.c.device.in_(names))
            ).all()
        return Batch(
            now=self._clock(),
            marks_before={(row.device, row.epoch): row.last for row in known},
            skews={row.device: row.clock_skew_s for row in skews if row.clock_skew_s is not None},
        )

    def _gather(self, messages: list[Incoming]) -> Batch:
        batch = self._empty(messages)
        for message in messages:
            batch.tally[f"received_{message.kind}"] += 1
            if message.kind == "reset":
                batch.reset = True
                batch.presence.clear()
                continue
            try:
                if message.kind == "presence":
                    presence = self._own(Presence.from_bytes(message.payload), message)
                    batch.presence[message.device] = presence
                elif message.kind == "reported":
                    reported = self._own(Reported.from_bytes(message.payload), message)
                    batch.reported[message.device] = reported
                    batch.skews.setdefault(message.device, reported.clock - message.received)
                else:
                    self._envelope(batch, message, self._own(Insights.from_bytes(message.payload), message))
            except _WrongDevice as error:
                batch.refuse(message, "wrong-device", str(error))
            except ProtocolError as error:
                batch.refuse(message, "malformed", str(error))
        return batch

    def _own(self, decoded: M, message: Incoming) -> M:
        """The message, when it names the device of its topic."""
        if decoded.device != message.device:
            raise _WrongDevice(f"the message names {decoded.device!r}, its topic {message.device!r}")
        return decoded

    def _envelope(self, batch: Batch, message: Incoming, envelope: Insights) -> None:
        """Judge one envelope, and gather its window when it is to be counted."""
        if not envelope.base <= envelope.first <= envelope.last:
            detail = f"base {envelope.base}, first {envelope.first}, last {envelope.last} have to ascend"
            batch.refuse(message, "sequence", detail)
            return
        key = (message.device, envelope.epoch)
        verdict = judge(batch.mark(key), envelope.first, envelope.last, envelope.base)
        batch.contacts[message.device] = None
        batch.tally[verdict.action] += 1
        refused = batch.acks.setdefault(key, [])
        if verdict.action in ("duplicate", "early"):
            return
        if verdict.action == "overlap":
            counted = batch.mark(key)
            detail = f"the window holds {envelope.first} to {envelope.last}, and {counted} is counted already"
            problem: tuple[Reason, str] | None = ("overlap", detail)
        else:
            problem = self._window(batch, message, envelope)
        batch.marks[key] = verdict.mark
        if verdict.gap:
            gap = min(verdict.gap, MAX_GAP)
            batch.count(message.device, {"gaps": gap})
            batch.tally["gaps"] += gap
        if problem is not None:
            batch.refuse(message, *problem)
            # An envelope can claim any range; what is told in detail is bounded as the ack is.
            refused.extend(range(envelope.first, min(envelope.last, envelope.first + 999) + 1))

    def _window(self, batch: Batch, message: Incoming, envelope: Insights) -> tuple[Reason, str] | None:
        """Gather the window; or say why it cannot be counted."""
        if not self._known_channel(envelope.channel):
            return "unknown-channel", f"there is no channel {envelope.channel!r}"
        release = envelope.window.get("release")
        schema = self._insights.schema_of(release) if isinstance(release, str) else None
        if schema is None:
            return "unknown-release", f"the hub has no release {str(release)[:80]!r} with a profile"
        try:
            window = Window.from_wire(dict(envelope.window), schema).without_segment()
        except InsightsError as error:
            return "window", str(error)
        skew_s = batch.skews.get(message.device, 0.0)
        start = self._insights.interval_of(window, skew_s=skew_s, now=batch.now)
        batch.additions.add(envelope.channel, start, window)
        batch.observed.append((message.device, envelope.channel, window))
        batch.count(message.device, {**count_window(window), "windows": 1})
        batch.classes[message.device] = add_lists(batch.classes.get(message.device, []), class_counts(window))
        return None

    def _write(self, connection: Connection, batch: Batch) -> None:
        for key, last in batch.marks.items():
            _move_mark(connection, key, batch.marks_before.get(key), last)
        self._insights.add(connection, batch.additions, batch.now)
        for device, counts in batch.counts.items():
            classes = batch.classes.get(device, [])
            add_counts(connection, device_totals, {"device": device}, counts, classes, DEVICE_COUNTS)
        if batch.reset:
            self._devices.forget_presence(connection)
        for presence in batch.presence.values():
            self._devices.take_presence(connection, presence, batch.now)
        for reported in batch.reported.values():
            self._devices.take_reported(connection, reported, batch.now)
        for device in batch.contacts:
            self._devices.take_contact(connection, device, batch.now)
        self._quarantine.add(connection, batch.refusals)

    def _add(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._totals.update(counts)


class _WrongDevice(Exception):
    """A message names another device than its topic."""


def _move_mark(connection: Connection, key: Key, before: int | None, last: int) -> None:
    device, epoch = key
    if before is None:
        connection.execute(marks.insert().values(device=device, epoch=epoch, last=last))
        return
    mine: Any = (marks.c.device == device) & (marks.c.epoch == epoch) & (marks.c.last == before)
    if connection.execute(marks.update().where(mine).values(last=last)).rowcount != 1:
        raise MarksMoved(f"the mark of {device} was moved by another process")
