"""The office: from a device's message to the answer that it gets back. Only a teacher's own threads wait for it.

1. What comes over MQTT is put into a bounded buffer by the network's thread, and acknowledged to the broker at once:
   no window waits behind an escalation.
2. A row of a prediction is asked about once: a message that comes again gets the answer that is there.
3. The channel's teachers are asked in order; each has a desk of its own (`cloud_hub.teachers.desk`).
4. The device is answered first, and the record is written after, many in one transaction. A hub that is killed loses
   the answers under way: their devices go on alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from cloud_hub.channels import Channel, Channels
from cloud_hub.errors import NotFound
from cloud_hub.escalations.records import (
    ANSWERED,
    ASKED,
    UNANSWERED,
    EscalationRecord,
    EscalationRecords,
    Key,
    asked_of,
    unanswered,
)
from cloud_hub.escalations.writing import Writing, Written
from cloud_hub.inbox import Inbox, Incoming
from cloud_hub.policy import TeachingPolicy
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Reason, Refusal
from cloud_hub.teachers.desk import Case
from cloud_hub.teachers.port import Array, Opinion, Outcome, Question
from cloud_hub.teachers.specs import PersonSpec
from cloud_hub.teachers.staff import Staff
from edgeloop.protocol import Answers, Escalation, ProtocolError, TeacherAnswer, Topics
from edgeloop.protocol.inputs import FORMS

log = logging.getLogger(__name__)

Then = Callable[[TeacherAnswer | None], bool]
"""Gets the answer, or None: it follows some time. Says whether the answer is on its way; called by any thread, soon."""
Classes = Callable[[str], tuple[tuple[str, ...], int]]
"""(names, number) of a release's classes, names () where it has none; raises `NotFound`."""

_TAKE_S = 0.2
#: Messages that are read between two looks whether to stop.
_READ_AT_ONCE = 16
#: Messages that wait to be read: that takes a millisecond each, so this many are seconds.
_MOST_UNREAD = 4096
#: Escalations of one device that are under way, as a share of those that may wait for a teacher.
_SHARE_OF_ONE = 0.25
#: Times that one row may be asked about while it is under way.
_MOST_THENS = 8


@dataclass(eq=False)
class Opened:
    """An escalation on its way.

    Attributes:
        record: what is known of it.
        payload: the message, for who has to see it later.
        thens: who wants to know the answer.
        teaching: the channel's policy.
        question: what teachers are asked.
        until: when nobody asks any more, by the monotonic clock.
        asked: teachers that were asked.
        reasons: why they gave no answer.
        over: whether it is dealt with.
        answer: what was found; None while there is none, and while a person is asked.
    """

    record: EscalationRecord
    payload: bytes
    thens: list[Then]
    teaching: TeachingPolicy = field(default_factory=TeachingPolicy)
    question: Question | None = None
    until: float = 0.0
    asked: int = 0
    reasons: list[str] = field(default_factory=list)
    over: bool = False
    answer: TeacherAnswer | None = None


class Office:
    """Takes escalations, has them answered, and tells the devices.

    Args:
        records: what was answered before.
        writing: writes new ones down, soon.
        staff: the teachers.
        channels: their policies.
        classes: of releases.
        topics: of the fleet.
        publisher: sends the answers.
        may_follow: whether a device may follow a channel, and so spend what its owner allows.
        stopped: why no teacher may be asked for a channel now, or "": a budget is spent.
        most: escalations that may wait for one teacher.
        most_bytes: bytes that wait to be read, at most.
        patience_s: how long an escalation that no client waits for may take, seconds.
        clock: unix seconds.
    """

    def __init__(
        self,
        records: EscalationRecords,
        writing: Writing,
        staff: Staff,
        channels: Channels,
        classes: Classes,
        topics: Topics,
        publisher: Publisher,
        *,
        may_follow: Callable[[str, str], bool],
        stopped: Callable[[str], str],
        most: int,
        most_bytes: int,
        patience_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records, self._writing, self._staff, self._channels = records, writing, staff, channels
        self._classes, self._topics, self._publisher, self._may_follow = classes, topics, publisher, may_follow
        self._patience_s, self._clock, self._stopped = patience_s, clock, stopped
        self._most_each = max(4, int(most * _SHARE_OF_ONE))
        self.inbox = Inbox(_MOST_UNREAD, most_bytes=most_bytes)
        self._lock = threading.Lock()
        self._open: dict[Key, Opened] = {}
        self._each: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    # ── what comes ────────────────────────────────────────────────────────────────────────────

    def submit(self, topic: str, payload: bytes, release: Callable[[], None] = lambda: None) -> None:
        """Take a message from the network's thread; never waits."""
        release()  # it would take the room of windows at the broker while a teacher thinks
        try:
            device = self._topics.parse(topic).device
        except ProtocolError:
            device = None
        if device is None or not self.inbox.put(Incoming("escalations", device, payload, self._clock())):
            self._count("dropped")

    def run(self, stop: threading.Event) -> None:
        """Background work: read what has come over MQTT."""
        while not stop.is_set():
            for message in self.inbox.take(_READ_AT_ONCE, _TAKE_S):
                try:
                    self._read(message)
                except Exception:
                    log.exception("an escalation of %s is lost", message.device)
                    self._count("failed")

    def take(self, escalation: Escalation, payload: bytes, then: Then) -> None:
        """Have an escalation answered.

        Args:
            escalation: the message; whoever calls has checked that it comes from the device that it names.
            payload: its bytes.
            then: gets the answer, now or later.
        """
        opened = Opened(EscalationRecord.of(escalation, len(payload), self._clock()), payload, [then])
        if not self._claim(opened):
            return
        try:
            found = self._records.find(opened.record.key)
            if found is not None and found.state != UNANSWERED:
                self._count("repeated")
                self._tell_all(opened, found)
                self.written(opened.record.key)
                return
            self._count("received")
            refused = self._prepare(opened, escalation)
        except BaseException:
            self.written(opened.record.key)
            raise
        if refused:
            self._finish(opened, unanswered(opened.record, refused))
        else:
            self._next(opened)

    def tell(self, device: str, answer: TeacherAnswer | None) -> bool:
        """Send an answer to a device; False while the hub is not connected: a label is then sent later."""
        if answer is None:
            return False  # silence is no failure: it would have the device ask nobody for a while
        message = Answers((), escalated=(answer,)).to_bytes()
        return self._publisher.publish(self._topics.answers(device), message)

    def written(self, key: Key) -> None:
        """The record of an escalation is in the database: from now on it is looked up there."""
        with self._lock:
            if self._open.pop(key, None) is not None:
                self._each[key[0]] -= 1
                if not self._each[key[0]]:
                    del self._each[key[0]]

    @property
    def totals(self) -> Mapping[str, int]:
        """Escalations by what became of them since the start."""
        with self._lock:
            return dict(self._totals)

    @property
    def under_way(self) -> int:
        """Escalations that are being answered, or whose record is not written yet."""
        with self._lock:
            return len(self._open)

    # ── on the way ────────────────────────────────────────────────────────────────────────────

    def _read(self, message: Incoming) -> None:
        try:
            escalation = Escalation.from_bytes(message.payload)
        except ProtocolError as error:
            self._refuse(message, "malformed", str(error))
            return
        if escalation.device == message.device:
            self.take(escalation, message.payload, partial(self.tell, message.device))
        else:
            detail = f"the message names {escalation.device!r}, its topic {message.device!r}"
            self._refuse(message, "wrong-device", detail)

    def _refuse(self, message: Incoming, reason: Reason, detail: str) -> None:
        self._count("quarantined")
        refusal = Refusal(message.device, message.kind, reason, detail, message.received, message.payload)
        self._writing.refuse(refusal)

    def _claim(self, opened: Opened) -> bool:
        """Whether this row is asked about now; else who asks is told what there is, or will be."""
        key, (then,) = opened.record.key, opened.thens
        with self._lock:
            same = self._open.get(key)
            if same is None and self._each[key[0]] < self._most_each:
                self._open[key] = opened
                self._each[key[0]] += 1
                return True
            self._totals["no_room" if same is None else "repeated"] += 1
            if same is not None and not same.over and len(same.thens) < _MOST_THENS:
                same.thens.append(then)
                return False
        if same is not None and same.over:
            then(same.answer)
        else:
            then(unanswered(opened.record, "no room: the device has too many under way").answer)
        return False

    def _prepare(self, opened: Opened, escalation: Escalation) -> str:
        """Make ready what teachers are asked; returns why there is nothing to ask, or ""."""
        channel = self._channels.find(escalation.channel)
        if channel is None or not self._may_follow(escalation.device, escalation.channel):
            return f"there is no channel {escalation.channel!r} that the device may follow"
        if why := self._stopped(channel.name) or _nobody(channel):
            return why
        if escalation.form not in FORMS or not escalation.tensors:
            return f"nothing travelled that a teacher could look at (form {escalation.form!r:.30})"
        try:
            labels, classes = self._classes(escalation.release)
            rows: dict[str, Array] = {name: tensor.row() for name, tensor in escalation.tensors.items()}
        except NotFound as error:
            return str(error)
        except ProtocolError as error:
            return f"the input cannot be read: {error}"
        opened.teaching = channel.policy.teaching
        if not opened.teaching.keep_inputs_s and not self._staff.people(opened.teaching.teachers):
            opened.payload = b""
        budget = opened.teaching.spend_per_day
        opened.question = Question(rows, labels, classes, escalation.form, escalation.channel, budget)
        patience_s = escalation.deadline_ms / 1e3 if escalation.wait and escalation.deadline_ms else self._patience_s
        opened.until = time.monotonic() + patience_s
        return ""

    def _next(self, opened: Opened) -> None:
        """Ask the next teacher; where there is none left, that is the answer."""
        teachers = opened.teaching.teachers
        assert opened.question is not None
        while opened.asked < len(teachers):
            name = teachers[opened.asked]
            opened.asked += 1
            teacher = self._staff.find(name)
            if teacher is not None and isinstance(teacher.spec, PersonSpec):
                if not (reason := self._no_person(opened, name, teacher.spec)):
                    self._finish(opened, asked_of(opened.record, name))
                    return
                opened.reasons.append(f"{name}: {reason}")
                continue
            if (desk := self._staff.desk(name)) is not None:
                then = partial(self._heard, opened, name)
                # The message's bytes and the rows that were read from it.
                desk.put(Case(opened.question, opened.record.wait, opened.until, 2 * opened.record.bytes, then))
                return
            opened.reasons.append(f"{name}: {'the hub is stopping' if teacher else 'there is no such teacher'}")
        self._finish(opened, unanswered(opened.record, "; ".join(opened.reasons)))

    def _no_person(self, opened: Opened, name: str, spec: PersonSpec) -> str:
        """Why people cannot be asked now, or ""."""
        if opened.record.form == "features":
            return "features of a model mean nothing to people"
        waiting, size = self._records.asked_of(name)
        full = waiting >= spec.most or size + opened.record.bytes > spec.most_bytes
        return "no room: too many items wait" if full else ""

    def _heard(self, opened: Opened, name: str, outcome: Outcome, ms: float) -> None:
        """What a teacher has said, or why it has not."""
        record, question = opened.record, opened.question
        opened.record = replace(record, teacher=name, ms=record.ms + ms, cost=record.cost + outcome.cost)
        assert question is not None
        if not isinstance(outcome, Opinion):
            opened.reasons.append(f"{name}: {outcome}")
        elif not 0 <= outcome.label < question.classes:
            opened.reasons.append(f"{name}: it answered class {outcome.label} of {question.classes}")
        else:
            said = replace(opened.record, label=outcome.label, sure=outcome.confidence, calibrated=outcome.calibrated)
            self._finish(opened, replace(said, state=ANSWERED, reason=""))
            return
        self._next(opened)

    def _finish(self, opened: Opened, record: EscalationRecord) -> None:
        answered = None if record.state == ASKED else self._clock()
        record = replace(record, answered=answered, learn=opened.teaching.learn)
        opened.record, opened.question = record, None
        self._count(record.state)
        record = replace(record, told=self._tell_all(opened, record))
        kept_s = opened.teaching.keep_inputs_s
        until = None if record.state == ASKED else record.received + kept_s
        payload = opened.payload if kept_s or record.state == ASKED else None
        self._writing.add(Written(record, payload, until), self.written)

    def _tell_all(self, opened: Opened, record: EscalationRecord) -> bool:
        answer = None if record.state == ASKED else record.answer
        with self._lock:
            opened.over, opened.answer = True, answer
            thens, opened.thens = opened.thens, []
        told = False
        for then in thens:
            try:
                told |= then(answer)
            except Exception:  # the others want to know it too
                log.exception("an answer for %s could not be told", opened.record.device)
        return told

    def _count(self, what: str) -> None:
        with self._lock:
            self._totals[what] += 1


def _nobody(channel: Channel) -> str:
    return "" if channel.policy.teaching.teachers else f"the channel {channel.name} has no teacher"
