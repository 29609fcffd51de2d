"""From messages to what one transaction is going to write: read, judged by the marks, sorted by release, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cloud_hub.counting import Arrived, Counted, Counting
from cloud_hub.delivery import judge
from cloud_hub.devices import Devices
from cloud_hub.inbox import Incoming
from cloud_hub.insights_store import InsightStore
from cloud_hub.marks import Key, Marks
from cloud_hub.quarantine import Reason, Refusal
from cloud_hub.records.database import Database
from edgeloop.protocol import Insights, Presence, ProtocolError, Reported

#: A device can claim any number; the sum of gaps has to stay a 64-bit integer.
MAX_GAP = 1 << 31
#: Numbers that an acknowledgement names as refused, at most.
MAX_REFUSED = 1000
_MESSAGES: Mapping[str, type[Insights | Presence | Reported]] = {
    "insights": Insights,
    "presence": Presence,
    "reported": Reported,
}


class Sent(NamedTuple):
    """An envelope, the message that it came in, and what its device is told about it."""

    message: Incoming
    envelope: Insights
    answer: Answer


@dataclass(slots=True)
class Answer:
    """What a device is told about one of its epochs.

    Attributes:
        shown: highest number that it has sent in this batch.
        moved: whether the mark has moved, or the device sent what has to wait.
        refused: numbers that were put into quarantine.
    """

    shown: int = 0
    moved: bool = False
    refused: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """What one transaction is going to write, gathered in memory."""

    now: float
    marks: Marks
    skews: dict[str, float]
    counted: Counted = field(default_factory=Counted)
    answers: dict[Key, Answer] = field(default_factory=dict)
    arrived: dict[str, list[Arrived]] = field(default_factory=dict)
    presence: dict[str, Presence] = field(default_factory=dict)
    reported: dict[str, Reported] = field(default_factory=dict)
    contacts: dict[str, None] = field(default_factory=dict)
    channels: dict[str, bool] = field(default_factory=dict)
    uplink: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    reset: bool = False

    def refuse(self, what: Incoming | Sent, reason: Reason, detail: str) -> None:
        """Put a message into quarantine; the numbers of an envelope are told to its device."""
        message = what.message if isinstance(what, Sent) else what
        if isinstance(what, Sent):
            first, last = what.envelope.first, what.envelope.last
            # An envelope can claim any range; what is told in detail is bounded as the ack is.
            what.answer.refused.extend(range(first, min(last, first + MAX_REFUSED - 1) + 1))
        self.refusals.append(Refusal(message.device, message.kind, reason, detail, message.received, message.payload))
        self.counted.count(message.device, {"quarantined": 1})
        self.tally["quarantined"] += 1


class Gatherer:
    """Gathers batches.

    Args:
        db: the records.
        devices: knows their clocks.
        insights: knows what windows of a release are like.
        known_channel: whether the hub has a channel of this name.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        devices: Devices,
        insights: InsightStore,
        known_channel: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._db, self._devices, self._insights = db, devices, insights
        self._known_channel, self._clock = known_channel, clock

    def gather(self, messages: Sequence[Incoming], *, observing: bool) -> Batch:
        """What these messages make of the records; with ``observing``, what observers are told as well."""
        read = [(message, _read(message)) for message in messages]
        keys = [(message.device, found.epoch) for message, found in read if isinstance(found, Insights)]
        names = sorted({device for device, _ in keys})
        batch = Batch(self._clock(), Marks(self._db, keys), self._devices.skews(names))
        kinds = Counter([message.kind for message in messages])
        batch.tally.update({f"received_{kind}": number for kind, number in kinds.items()})
        for message, found in read:
            if isinstance(found, Insights):
                self._judge(batch, message, found)
            elif isinstance(found, Presence):
                batch.presence[message.device] = found
            elif isinstance(found, Reported):
                batch.reported[message.device] = found
                batch.skews.setdefault(message.device, found.clock - message.received)
            elif isinstance(found, Exception):
                batch.refuse(message, "wrong-device" if isinstance(found, _WrongDevice) else "malformed", str(found))
            else:
                batch.reset = True
                batch.presence.clear()
        counting = Counting(self._insights, batch.counted, batch.now, observing=observing)
        for release, arrived in batch.arrived.items():
            for item, detail in counting.add(release, self._insights.schema(release), arrived):
                batch.refuse(item.sent, "window", detail)
        return batch

    def _judge(self, batch: Batch, message: Incoming, envelope: Insights) -> None:
        """Judge one envelope, and put its window with those that are to be counted."""
        first, last = envelope.first, envelope.last
        if not envelope.base <= first <= last:
            detail = f"base {envelope.base}, first {first}, last {last} have to ascend"
            batch.refuse(message, "sequence", detail)
            return
        key = (message.device, envelope.epoch)
        counted = batch.marks.last(key)
        verdict = judge(counted, first, last, envelope.base)
        batch.contacts[message.device] = None
        batch.tally[verdict.action] += 1
        if (answer := batch.answers.get(key)) is None:
            answer = batch.answers[key] = Answer()
        answer.shown = max(answer.shown, last)
        if verdict.action == "duplicate":
            if batch.marks.is_another(key, last, envelope.window):
                detail = f"number {last} is counted already with another window; were the device's data restored?"
                batch.refuse(message, "reused", detail)
            return
        answer.moved = True
        if verdict.action == "early":
            return
        sent, owner = Sent(message, envelope, answer), batch.marks.owner(key)
        batch.marks.move(key, last, envelope.window)
        if verdict.gap:
            gap = min(verdict.gap, MAX_GAP)
            batch.counted.count(message.device, {"gaps": gap})
            batch.tally["gaps"] += gap
        if verdict.action == "overlap":
            batch.refuse(sent, "overlap", f"the window holds {first} to {last}, and {counted} is counted already")
        elif owner is not None:
            detail = f"epoch {envelope.epoch} is of {owner}; was its data folder copied, or the device renamed?"
            batch.refuse(sent, "epoch-taken", detail)
        else:
            self._sort_in(batch, sent)

    def _sort_in(self, batch: Batch, sent: Sent) -> None:
        """Put the window with those of its release, or refuse it."""
        device, channel, window = sent.message.device, sent.envelope.channel, sent.envelope.window
        if (known := batch.channels.get(channel)) is None:
            known = batch.channels[channel] = self._known_channel(channel)
        if not known:
            batch.refuse(sent, "unknown-channel", f"there is no channel {channel!r}")
            return
        release = window.get("release")
        if not isinstance(release, str) or (release not in batch.arrived and self._insights.schema_of(release) is None):
            batch.refuse(sent, "unknown-release", f"the hub has no release {str(release)[:80]!r} with a profile")
            return
        arrived = Arrived(device, channel, window, batch.skews.get(device, 0.0), sent)
        batch.arrived.setdefault(release, []).append(arrived)
        batch.uplink[channel, release] += len(sent.message.payload)

    def set_aside(self, message: Incoming, error: Exception) -> Batch:
        """A message that a defect of ours kept from being dealt with: into quarantine, and its number is passed."""
        envelope = None
        if message.kind == "insights":
            try:
                envelope = Insights.from_bytes(message.payload)
            except ProtocolError:
                envelope = None
        key = None if envelope is None else (message.device, envelope.epoch)
        batch = Batch(self._clock(), Marks(self._db, [] if key is None else [key]), {})
        batch.refuse(message, "internal", f"{type(error).__name__}: {error}")
        if envelope is not None and key is not None:
            verdict = judge(batch.marks.last(key), envelope.first, envelope.last, envelope.base)
            if verdict.action in ("apply", "overlap"):
                batch.marks.move(key, envelope.last, envelope.window)
        return batch


class _WrongDevice(Exception):
    """A message names another device than its topic."""


def _read(message: Incoming) -> Presence | Reported | Insights | ProtocolError | _WrongDevice | None:
    """What a message says, or why it cannot be read; None for a reset."""
    if (kind := _MESSAGES.get(message.kind)) is None:
        return None
    try:
        found = kind.from_bytes(message.payload)
    except ProtocolError as error:
        return error
    if found.device != message.device:
        return _WrongDevice(f"the message names {found.device!r}, its topic {message.device!r}")
    return found
