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
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from cloud_hub.counting import Ages
from cloud_hub.devices import Devices
from cloud_hub.gathering import MAX_REFUSED, Batch, Gatherer
from cloud_hub.inbox import Inbox, Incoming
from cloud_hub.insights_store import Additions, InsightStore
from cloud_hub.marks import MarksMoved
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Quarantine
from cloud_hub.records.counters import DEVICE_COUNTS, add_sums
from cloud_hub.records.database import Database
from cloud_hub.records.tables import device_totals
from cloud_hub.seen import Seen
from edgeloop.protocol import Ack, ProtocolError, Topics
from edgeloop.protocol.topics import DeviceKind

log = logging.getLogger(__name__)

KINDS: tuple[DeviceKind, ...] = ("presence", "reported", "insights")
#: Wait after a transaction that failed (a full disk), seconds: devices send again meanwhile.
FAILURE_PAUSE_S = 1.0
_TAKE_S = 0.2
#: Topics that are remembered, with whose they are; each device has three.
MAX_TOPICS = 1 << 16

Account = Callable[[Connection, Additions, Mapping[tuple[str, str], int], float], None]
"""Is given what a transaction counts, the bytes that brought it by (channel, release), and the time."""
Observed = Callable[[Seen], None]
"""See `Ingest.observes`."""

#: The next try may succeed: nothing is acknowledged, so devices send again.
TRANSIENT = (SQLAlchemyError, MarksMoved, OSError)


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
        account: keeps accounts, in the transaction that counts.
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
        account: Account = lambda connection, additions, uplink, now: None,
        queue: int = 8192,
        batch: int = 2048,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._devices, self._insights, self._quarantine = db, devices, insights, quarantine
        self._topics, self._publisher = topics, publisher
        self._gatherer = Gatherer(db, devices, insights, known_channel, clock)
        self._batch_size, self._clock, self._account = batch, clock, account
        self.inbox = Inbox(queue)
        self._observers: list[Observed] = []
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._ages = Ages()
        self._working_since: float | None = None
        self._address = lru_cache(MAX_TOPICS)(partial(_address, topics))

    def observes(self, observed: Observed) -> None:
        """Have ``observed(seen)`` called after each commit, for the windows that were counted in it.

        It is called from the thread that ingests: what takes long holds up the acknowledgements. A hub that is killed
        between a commit and the call does not call again. One that raises is logged and changes nothing.
        """
        self._observers.append(observed)

    def submit(self, topic: str, payload: bytes, release: Callable[[], None] = lambda: None) -> None:
        """Take a message from the network's thread; never waits.

        Args:
            topic: as it came; what is none of the fleet's device topics is dropped and counted.
            payload: as it came.
            release: tells the broker that the message was dealt with.
        """
        if (address := self._address(topic)) is None:
            self._add({"foreign": 1})
            release()
        elif not self.inbox.put(Incoming(*address, payload, self._clock(), release)):
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
        self._working_since = messages[0].received
        try:
            self.process(messages)
        except TRANSIENT as error:
            self._add({"failed": len(messages)})
            log.error("a batch of %d messages was not committed; devices send again: %s", len(messages), error)
            return False
        finally:
            self._working_since = None
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
    def lag_s(self) -> float:
        """How long the message that waits longest has been here without being committed, seconds; 0 for none."""
        since = self._working_since if self._working_since is not None else self.inbox.oldest
        return 0.0 if since is None else max(0.0, self._clock() - since)

    @property
    def ages(self) -> Ages:
        """How old windows were when they were counted, since the start."""
        with self._lock:
            return Ages(list(self._ages.numbers), self._ages.sum_s)

    @property
    def totals(self) -> dict[str, int]:
        """Messages by what became of them since the start: apply, duplicate, early, quarantined and others."""
        with self._lock:
            return dict(self._totals)

    # -- one transaction ------------------------------------------------------------------------------------------

    def _commit(self, messages: list[Incoming]) -> None:
        batch = self._gatherer.gather(messages, observing=bool(self._observers))
        with self._db.begin() as connection:
            self._write(connection, batch)
        self._note(batch)
        self._tell_observers(batch)
        for (device, epoch), answer in batch.answers.items():
            last = batch.marks.last((device, epoch)) or 0
            # A device whose data were restored from a copy counts from below our mark. It takes no acknowledgement of
            # numbers that it has not sent, and would send for ever.
            told = last if answer.moved else min(last, answer.shown)
            ack = Ack(epoch, told, tuple(sorted(answer.refused)[:MAX_REFUSED]))
            # At QoS 0: one that is lost costs a repetition, and the broker's answer would cost us as much again.
            self._publisher.publish(self._topics.ack(device), ack.to_bytes(), qos=0)

    def _tell_observers(self, batch: Batch) -> None:
        for observed in self._observers:
            for seen in batch.counted.seen:
                try:
                    observed(seen)
                except Exception:  # it is committed: the devices must not send it again
                    log.exception("an observer of the windows of %s failed", seen.release)

    def _commit_alone(self, message: Incoming) -> None:
        try:
            self._commit([message])
        except TRANSIENT:
            raise
        except Exception as error:
            log.exception("a message of %s is set aside", message.device)
            batch = self._gatherer.set_aside(message, error)
            with self._db.begin() as connection:
                self._write(connection, batch)
            self._note(batch)

    def _write(self, connection: Connection, batch: Batch) -> None:
        batch.marks.write(connection)
        self._insights.add(connection, batch.counted.additions, batch.now)
        self._account(connection, batch.counted.additions, batch.uplink, batch.now)
        add_sums(connection, device_totals, batch.counted.devices, DEVICE_COUNTS)
        if batch.reset:
            self._devices.forget_presence(connection)
        for presence in batch.presence.values():
            self._devices.take_presence(connection, presence, batch.now)
        for reported in batch.reported.values():
            self._devices.take_reported(connection, reported, batch.now)
        self._devices.take_contacts(connection, list(batch.contacts), batch.now)
        self._quarantine.add(connection, batch.refusals)

    def _note(self, batch: Batch) -> None:
        with self._lock:
            self._totals.update(batch.tally)
            self._totals.update(batch.counted.tally)
            self._ages.add(batch.counted.ages.numbers, batch.counted.ages.sum_s)

    def _add(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._totals.update(counts)


def _address(topics: Topics, topic: str) -> tuple[str, str] | None:
    """The kind and the device of a topic that the hub reads."""
    try:
        address = topics.parse(topic)
    except ProtocolError:
        return None
    return None if address.device is None or address.kind not in KINDS else (address.kind, address.device)
