"""The messages: every payload that crosses MQTT, as frozen dataclasses.

Unknown fields are kept in ``extra`` and written back. ``from_bytes`` raises :class:`ProtocolError` for whatever is not
such a message; nothing else leaves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Self

from edgeloop.protocol.codec import MAX_WINDOW_BYTES, check, opened, read
from edgeloop.protocol.fields import (
    CLOCK,
    COUNT,
    DIGEST,
    LABEL,
    NAME,
    PREDICTION,
    SENTENCE,
    SEQUENCE,
    Boolean,
    Integer,
    ListOf,
    MapOf,
    Nullable,
    Octets,
    Pair,
    Plain,
    Real,
    Text,
)
from edgeloop.protocol.inputs import Escalation, Sample, TeacherAnswer
from edgeloop.protocol.parts import Message, Part, PartOf
from edgeloop.protocol.trials import TrialReport, TrialRequest
from edgeloop.protocol.usual import is_usual_window
from edgeloop.records import dataclass


@dataclass(frozen=True)
class Presence(Message):
    """Whether a device is connected: published on connect, and left with the broker as the device's will.

    Attributes:
        device: the device's name.
        online: True from the device itself, False from its will or its orderly stop.
        epoch: of the device's outbox; it changes only when the device's memory was lost.
        agent_version: version of the agent.
    """

    device: Annotated[str, NAME]
    online: Annotated[bool, Boolean()]
    epoch: Annotated[int, COUNT]
    agent_version: Annotated[str, Text(64)]


@dataclass(frozen=True)
class UpdateReport(Part):
    """Where the update machine of a device stands.

    Attributes:
        release: digest that the state is about, or None.
        state: a state of the table in DESIGN 4; one that the reader does not know is kept as it is.
        reason: a sentence for a person.
        attempt: how many times this release was tried.
        rollout: id of the rollout that offered it, or None.
    """

    release: Annotated[str | None, Nullable(DIGEST)]
    state: Annotated[str, Text(32)]
    reason: Annotated[str, SENTENCE] = ""
    attempt: Annotated[int, COUNT] = 0
    rollout: Annotated[str | None, Nullable(Text(128))] = None


@dataclass(frozen=True)
class DeviceAlarm(Part):
    """A drift that a device has seen in its own windows, several times in a row; it is told until it is gone.

    Attributes:
        release: digest of the release whose windows moved.
        since: unix seconds by the device's clock, start of the first window that had moved.
        seen: unix seconds by the device's clock, end of the latest one.
        aspects: what moved, the largest effect first.
        effect: share of the mass that moved at most, 0…1.
        p_value: how often chance shows as much in one comparison.
        moved: what moved, a sentence for a person.
        suggestion: what to look at first.
    """

    release: Annotated[str, DIGEST]
    since: Annotated[float, CLOCK]
    seen: Annotated[float, CLOCK]
    aspects: Annotated[tuple[str, ...], ListOf(Text(64), 16)]
    effect: Annotated[float, Real(0.0, 1.0)]
    p_value: Annotated[float, Real(0.0, 1.0)]
    moved: Annotated[str, SENTENCE] = ""
    suggestion: Annotated[str, SENTENCE] = ""


@dataclass(frozen=True)
class Reported(Message):
    """What a device says of itself; retained, published on change and at least every report interval.

    Attributes:
        device: the device's name.
        channel: the channel that it follows.
        release: digest of the committed release, or None.
        previous: digest of the release kept for going back, or None.
        update: the update machine, or None when it has not started.
        variant: the variant that runs, or "".
        provider: the execution provider really used, or "".
        placement: provider → number of nodes that run there.
        health: plain figures and words: outbox, disk, temperature, malformed messages, …
        unclean_restarts: starts that found an open window, so that up to one checkpoint interval was lost.
        ledger: totals of all closed windows of this epoch: predictions, errors, feedback, windows, last_seq.
        clock: the device's clock, unix seconds; it may be wrong.
        serial: serial of the channel document seen last.
        mono: milliseconds of the device's monotonic clock, which orders documents between two boots.
        epoch: the epoch that ``ledger`` belongs to.
        alarms: drifts that the device sees in its own windows now.
        trial: where the trial stands that ``desired`` asks for, or None.
    """

    device: Annotated[str, NAME]
    channel: Annotated[str, NAME]
    release: Annotated[str | None, Nullable(DIGEST)]
    previous: Annotated[str | None, Nullable(DIGEST)] = None
    update: Annotated[UpdateReport | None, Nullable(PartOf(UpdateReport))] = None
    variant: Annotated[str, Text(64)] = ""
    provider: Annotated[str, Text(128)] = ""
    placement: Annotated[Mapping[str, int], MapOf(COUNT, 32)] = field(default_factory=dict)
    health: Annotated[Mapping[str, Any], Plain()] = field(default_factory=dict)
    unclean_restarts: Annotated[int, COUNT] = 0
    ledger: Annotated[Mapping[str, int], MapOf(COUNT, 64)] = field(default_factory=dict)
    clock: Annotated[float, CLOCK] = 0.0
    serial: Annotated[int, COUNT] = 0
    mono: Annotated[int, COUNT] = 0
    epoch: Annotated[int, COUNT] = 0
    alarms: Annotated[tuple[DeviceAlarm, ...], ListOf(PartOf(DeviceAlarm), 16)] = ()
    trial: Annotated[TrialReport | None, Nullable(PartOf(TrialReport))] = None


@dataclass(frozen=True)
class Insights(Message):
    """One closed window, or several neighbouring ones merged, of one release on one device.

    Attributes:
        device: the device's name.
        epoch: of the device's outbox, > 0.
        first: lowest sequence number that is merged in the window.
        last: highest one; numbers between are in it too.
        base: lowest sequence number that the outbox still holds: what is below it is acknowledged.
        window: ``Window.to_wire()``; edgeloop.insights checks it.
        channel: the channel that the device followed when the window was sent.
    """

    max_bytes: ClassVar[int] = MAX_WINDOW_BYTES

    device: Annotated[str, NAME]
    epoch: Annotated[int, SEQUENCE]
    first: Annotated[int, SEQUENCE]
    last: Annotated[int, SEQUENCE]
    base: Annotated[int, SEQUENCE]
    window: Annotated[Mapping[str, Any], Plain()]
    channel: Annotated[str, NAME]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a payload; a hub reads thousands of these a second, so one that is as usual is looked at once.

        Raises:
            ProtocolError: the bytes are not such a message.
        """
        value = read(data, cls.max_bytes)
        if is_usual_window(value):
            return cls.of_fields(opened(value))
        check(value)
        return cls.from_wire(opened(value))


@dataclass(frozen=True)
class Ack(Message):
    """The hub has committed every window of ``epoch`` up to ``last``.

    Attributes:
        epoch: of the device's outbox.
        last: highest sequence number committed, without a gap below it; 0 for none yet.
        refused: sequence numbers among them that the hub put into quarantine instead of counting.
        samples: numbers of the samples of ``epoch`` that the hub has stored, or will not have: the device lets go of
            them.
    """

    epoch: Annotated[int, SEQUENCE]
    last: Annotated[int, COUNT]
    refused: Annotated[tuple[int, ...], ListOf(SEQUENCE, 1000)] = ()
    samples: Annotated[tuple[int, ...], ListOf(SEQUENCE, 1000)] = ()


@dataclass(frozen=True)
class Desired(Message):
    """What the hub wants of one device; retained.

    Attributes:
        channel: the channel to follow, or None for the one in the device's own settings.
        pin: digest of a release to stay on, or None.
        policy: settings of the device that the hub may steer.
        device: the device that it is meant for: a document of another device counts for nothing.
        serial: grows with every change; an older document is ignored.
        trial: candidates of a model that it shall measure, if its owner allows that, or None.
    """

    channel: Annotated[str | None, Nullable(NAME)] = None
    pin: Annotated[str | None, Nullable(DIGEST)] = None
    policy: Annotated[Mapping[str, Any], Plain()] = field(default_factory=dict)
    device: Annotated[str, Text(64)] = ""
    serial: Annotated[int, COUNT] = 0
    trial: Annotated[TrialRequest | None, Nullable(PartOf(TrialRequest))] = None


@dataclass(frozen=True)
class SignedDesired(Message):
    """What is on a device's ``desired`` topic: the document's bytes, and who answers for them.

    Attributes:
        document: the bytes of a `Desired`.
        signature: of those bytes, by the key that the fleet's ``channels`` role has; empty in a fleet without
            signatures.
    """

    document: Annotated[bytes, Octets(1 << 20)]
    signature: Annotated[bytes, Octets(1024)] = b""


@dataclass(frozen=True)
class ReleaseRef(Part):
    """A release by its digest, with what a device needs to fetch its index.

    Attributes:
        digest: ``sha256:…`` of the index.
        name: the package's name.
        version: the package's version.
        index_size: bytes of the index, at most 4 MiB: the device reads no more.
        target: path of the release in the fleet's signed metadata; "" in a fleet without signatures.
    """

    digest: Annotated[str, DIGEST]
    name: Annotated[str, Text(128)]
    version: Annotated[str, Text(128)]
    index_size: Annotated[int, Integer(1, 4 << 20)]
    target: Annotated[str, Text(256)] = ""


@dataclass(frozen=True)
class RolloutRef(Part):
    """A rollout under way.

    Attributes:
        id: the rollout's id; with the device's name it places each device in [0, 1).
        candidate: the release that is rolled out.
        fraction: devices whose place is below it take the candidate; 0 for none, 1 for all.
    """

    id: Annotated[str, Text(128)]
    candidate: Annotated[ReleaseRef, PartOf(ReleaseRef)]
    fraction: Annotated[float, Real(0.0, 1.0)]


@dataclass(frozen=True)
class ChannelDocument(Message):
    """What a channel's followers run; one retained message for a fleet of any size.

    Attributes:
        channel: the channel's name.
        serial: grows with every change; an older document is ignored.
        current: the channel's release, or None while it has none.
        rollout: the rollout under way, or None.
        hub: base URL of the hub's HTTP interface, from which files are fetched.
        policy: what the channel's owner asks of its devices, by subject: ``insights``.
    """

    channel: Annotated[str, NAME]
    serial: Annotated[int, COUNT]
    current: Annotated[ReleaseRef | None, Nullable(PartOf(ReleaseRef))] = None
    rollout: Annotated[RolloutRef | None, Nullable(PartOf(RolloutRef))] = None
    hub: Annotated[str, Text(512)] = ""
    policy: Annotated[Mapping[str, Any], Plain()] = field(default_factory=dict)

    def release_for(self, device: str) -> ReleaseRef | None:
        """The release that ``device`` takes: the candidate when its place is below the fraction."""
        if self.rollout is not None and position(self.rollout.id, device) < self.rollout.fraction:
            return self.rollout.candidate
        return self.current


@dataclass(frozen=True)
class SignedChannel(Message):
    """What is on a channel's topic: the document's bytes, and the metadata that vouch for them.

    Attributes:
        document: the bytes of a `ChannelDocument`.
        metadata: file name → bytes of the metadata of The Update Framework that a device needs to verify the document
            and the releases in it; empty in a fleet without signatures.
    """

    document: Annotated[bytes, Octets(1 << 20)]
    metadata: Annotated[Mapping[str, bytes], MapOf(Octets(512_000), 512)] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers(Message):
    """True labels for earlier predictions of a device, and what the teacher says of escalated inputs, from the hub.

    Attributes:
        items: (prediction id, label) pairs; a label is a class index or a label's name.
        escalated: answers to escalations, those without a label included.
    """

    items: Annotated[tuple[tuple[str, int | str], ...], ListOf(Pair(PREDICTION, LABEL), 1000)]
    escalated: Annotated[tuple[TeacherAnswer, ...], ListOf(PartOf(TeacherAnswer), 1000)] = ()


def position(rollout_id: str, device: str) -> float:
    """A device's place in a rollout: ``sha256(rollout_id + "/" + device)`` as a fraction of 2^256, in [0, 1).

    The quotient is cut to 53 bits, so that it never rounds up to 1 and a fraction of 1.0 takes every device.
    """
    digest = hashlib.sha256(f"{rollout_id}/{device}".encode()).digest()
    return (int.from_bytes(digest, "big") >> (256 - 53)) / (1 << 53)


DEVICE_MESSAGES: Mapping[str, type[Message]] = {
    "presence": Presence,
    "reported": Reported,
    "insights": Insights,
    "ack": Ack,
    "answers": Answers,
    "desired": SignedDesired,
    "channel": SignedChannel,
    "escalations": Escalation,
    "samples": Sample,
}
"""The message of each kind of topic."""
