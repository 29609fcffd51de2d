"""The agent's end of MQTT: joins the link to the parts of the agent, translates, and decides nothing.

Out: presence, reported, insights. In: acknowledgements, answers, desired, channel documents. A payload that is not the
protocol's is counted and logged, and changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.observing.ledger import Ledger
from edge_agent.observing.sender import Sender
from edge_agent.observing.store import Store, StoreError
from edge_agent.ports import FeedbackItem, Measuring, MessagingState, Recorder, Trust, Untrusted, Updates, Vitals
from edgeloop.protocol import (
    Ack,
    Answers,
    Desired,
    Presence,
    ProtocolError,
    Reported,
    TeacherAnswer,
    Topics,
    TrialReport,
    UpdateReport,
)
from edgeloop.protocol.link import Link
from edgeloop.protocol.trials import REFUSED
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

# Several changes at once make one document; also the longest that a change waits.
DEBOUNCE_S = 0.2
MAX_REASON_CHARACTERS = 2000
NO_TRIALS = "the owner of this device does not allow trials (trials = false in its settings)"


@dataclass(frozen=True)
class Identity:
    """Who this agent is: its fleet, its name, the channel of its settings and its version."""

    fleet: str
    device: str
    channel: str
    agent_version: str


class Messaging:
    """Implements :class:`edge_agent.ports.Reporter`.

    Args:
        identity: who this agent is.
        store: the device's database; it remembers the highest serial that was seen of each channel.
        open_link: makes the link, given the will as (topic, payload); it must not be started.
        make_sender: makes the sender of insights, given the link.
        recorder: takes the labels that the hub sends.
        policies: subject → takes what the channel asks for of it, {} where it asks nothing; raises ProtocolError
            when it is none.
        trust: who vouches for what comes from the hub.
        teacher: takes what the hub's teacher says of escalated inputs; None: none are escalated.
        ledger: totals of closed windows, for the reported document.
        vitals: gives what the composition root knows of the device now.
        report_s: seconds between two reported documents when nothing changes.
        trials: measures candidates for the hub; None: the owner does not allow it.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        open_link: Callable[[tuple[str, bytes]], Link],
        make_sender: Callable[[Link], Sender],
        *,
        recorder: Recorder,
        policies: Mapping[str, Callable[[Any], None]],
        samples: Callable[[Ack], None] = lambda ack: None,
        trust: Trust,
        ledger: Ledger,
        vitals: Callable[[], Vitals],
        report_s: float = 30.0,
        teacher: Callable[[Sequence[TeacherAnswer]], None] | None = None,
        trials: Measuring | None = None,
    ) -> None:
        self._identity = identity
        self._store = store
        self._topics = Topics(identity.fleet)
        self._recorder = recorder
        self._policies = policies
        self._samples = samples
        self._trust = trust
        self._teacher = teacher
        self._trials = trials
        self._ledger = ledger
        self._vitals = vitals
        self._report_s = report_s
        self._updates: Updates | None = None
        self._channel = identity.channel
        self._lock = threading.Lock()
        self._malformed = 0
        self._stale = 0
        self._last_malformed = ""
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reporting", daemon=True)
        self.desired = Desired()
        #: Base URL of the hub that the channel's document names, or "".
        self.hub = ""
        self.link = open_link((self._topics.presence(identity.device), self._presence(online=False)))
        self.sender = make_sender(self.link)

    # -- the agent's side -----------------------------------------------------------------------------------------

    def start(self, updates: Updates) -> None:
        """Connect, and hand channel documents to ``updates`` from now on; returns at once."""
        self._updates = updates
        device, topics, subscribe = self._identity.device, self._topics, self.link.subscribe
        subscribe(topics.ack(device), self._checked(self._on_ack))
        subscribe(topics.answers(device), self._checked(self._on_answers))
        subscribe(topics.desired(device), self._opened(self._on_desired))
        subscribe(topics.channel(self._channel), self._opened(self._on_channel))
        self.link.on_connect(self._on_connect)
        self.link.start()
        self.sender.start()
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye to the hub and end the threads, within about ``timeout_s`` seconds."""
        self._stopping = True
        self._due.set()
        self.sender.stop(timeout_s / 2)
        self._thread.join(timeout_s / 4)
        if self.link.connected:
            self._publish_reported()
            self.link.publish(self._topics.presence(self._identity.device), self._presence(online=False), retain=True)
        self.link.stop(timeout_s / 2)

    def use(self, channel: str, report_s: float) -> None:
        """Go on with another channel of the settings, unless the hub wishes one, and another time between reports."""
        self._report_s = report_s
        self._identity = replace(self._identity, channel=channel)
        self._follow(self.desired.channel or channel)
        self._due.set()

    def report(self) -> None:
        """Publish the reported document soon; never blocks, never raises."""
        self._due.set()

    def windows_closed(self) -> None:
        """There is something new to send: wakes the sender, and the ledger has changed."""
        self.sender.wake()
        self._due.set()

    @property
    def channel(self) -> str:
        """The channel that the device follows now: the hub's wish, else that of the settings."""
        return self._channel

    def state(self) -> MessagingState:
        """What status shows."""
        link = self.link
        return MessagingState(
            connected=link.connected,
            broker=link.address,
            last_error=link.last_error,
            mqtt="5" if link.version == 5 else "3.1.1",
            channel=self._channel,
            serial=self._serial(),
            malformed=self._malformed,
            stale=self._stale,
            last_malformed=self._last_malformed,
        )

    # -- from the hub ---------------------------------------------------------------------------------------------

    def _checked(self, handler: Callable[[str, bytes], None]) -> Callable[[str, bytes], None]:
        def handle(topic: str, payload: bytes) -> None:
            try:
                handler(topic, payload)
            except ProtocolError as error:
                with self._lock:
                    self._malformed += 1
                    self._last_malformed = f"{topic}: {error}"[:500]
                    count = self._malformed
                # A flood of them must not fill the disk with log lines.
                if count <= 10 or count % 1000 == 0:
                    log.warning("malformed payload number %d on %s: %s; it was ignored", count, topic, error)
                self._due.set()
            except StoreError as error:
                log.error("%s", error)

        return handle

    def _opened(self, handler: Callable[[str, bytes], None]) -> Callable[[str, bytes], None]:
        """Verification takes its time: not the link's, and of a topic only what came last."""

        def attempt(topic: str, payload: bytes) -> None:
            try:
                handler(topic, payload)
            except Untrusted as error:
                log.warning("what came on %s is not trusted: %s", topic, error)
                self._due.set()
                raise

        checked = self._checked(attempt)
        return lambda topic, payload: self._trust.soon(topic, lambda: checked(topic, payload))

    def _on_connect(self) -> None:
        self.link.publish(self._topics.presence(self._identity.device), self._presence(online=True), retain=True)
        self.sender.connected()
        self._due.set()

    def _on_ack(self, _topic: str, payload: bytes) -> None:
        ack = Ack.from_bytes(payload)
        if ack.samples:  # a message of its own: it tells nothing of windows
            self._samples(ack)
        else:
            self.sender.acknowledged(ack)

    def _on_answers(self, _topic: str, payload: bytes) -> None:
        answers = Answers.from_bytes(payload)
        if answers.escalated and self._teacher is not None:
            self._teacher(answers.escalated)
        if not answers.items:
            return
        result = self._recorder.feedback([FeedbackItem(name, label) for name, label in answers.items])
        if result.unknown or result.invalid:
            log.info("of the hub's labels %d are unknown, %d invalid", len(result.unknown), len(result.invalid))

    def _on_desired(self, _topic: str, payload: bytes) -> None:
        desired = self._trust.open_desired(payload)
        if desired is None:
            return
        name = f"desired{self._era()}"
        if desired.serial < (seen := self._store.fact(name, 0)):
            self._stale += 1
            log.warning("ignored serial %d of what the hub wants: %d was seen before", desired.serial, seen)
            return
        if desired.serial > seen:
            self._store.set_fact(name, desired.serial)
        self.desired = desired
        self._follow(self.desired.channel or self._identity.channel)
        if self._trials is not None:
            self._trials.follow(desired.trial)
        self._due.set()

    def _follow(self, wanted: str) -> None:
        if wanted != self._channel:
            log.info("following channel %s instead of %s", wanted, self._channel)
            self._channel = wanted
            self.link.subscribe(self._topics.channel(wanted), self._opened(self._on_channel))

    def _on_channel(self, topic: str, payload: bytes) -> None:
        if not payload:
            return
        channel = self._topics.parse(topic).channel
        if channel is None or channel != self._channel:
            return
        document = self._trust.open_channel(channel, payload)
        seen = self._serial()
        if document.serial < seen:
            self._stale += 1
            log.warning(
                "ignored serial %d of channel %s: %d was seen before. If the hub was set up anew under the same name, "
                "give its channel another name",
                document.serial,
                document.channel,
                seen,
            )
            return
        if document.serial > seen:
            self._store.set_fact(self._serial_name(), document.serial)
        self.hub = document.hub
        if self._updates is not None:
            self._updates.follow(document)
        self._due.set()
        self._follow_policies(document.policy)  # last: a policy that cannot be read holds up no release

    def _follow_policies(self, asked: Mapping[str, Any]) -> None:
        """Each is taken, whatever is wrong with another."""
        wrong: list[str] = []
        for subject, take in self._policies.items():
            try:
                take(asked.get(subject, {}))
            except ProtocolError as error:
                wrong.append(str(error))
        if wrong:
            raise ProtocolError("; ".join(wrong))

    # -- to the hub -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(self._report_s)
            if self._stopping:
                return
            # Cleared before the document is made: a change after this makes another one.
            time.sleep(DEBOUNCE_S)
            self._due.clear()
            if not self.link.connected:
                continue
            try:
                self._publish_reported()
            except Exception:
                log.exception("the reported document could not be made; trying again at the next report")

    def _publish_reported(self) -> None:
        self.link.publish(self._topics.reported(self._identity.device), self._reported().to_bytes(), retain=True)

    def _reported(self) -> Reported:
        vitals, updates, trust = self._vitals(), self._updates, self._trust.state()
        outbox = self.sender.outbox_state()
        health = {
            **vitals.health,
            "outbox_rows": outbox.rows,
            "outbox_bytes": outbox.bytes,
            "outbox_unsent": outbox.unsent_rows,
            "outbox_level": outbox.level,
            "malformed": self._malformed,
            "stale_documents": self._stale,
            "untrusted": trust.refused,
            "trust": trust.trouble,
            "link_dropped": self.link.counters.dropped,
            "link_refused": self.link.counters.refused,
        }
        return Reported(
            device=self._identity.device,
            channel=self._channel,
            release=updates.committed() if updates is not None else None,
            previous=updates.previous() if updates is not None else None,
            update=self._update_report(updates) if updates is not None else None,
            variant=vitals.variant,
            provider=vitals.provider,
            placement=vitals.placement,
            health=health,
            unclean_restarts=self._store.unclean_restarts,
            ledger={**self._ledger.totals(), "last_seq": outbox.last_seq},
            clock=time.time(),
            serial=self._serial(),
            mono=time.monotonic_ns() // 1_000_000,
            epoch=self._store.epoch,
            alarms=vitals.alarms,
            trial=self._trial(),
        )

    def _trial(self) -> TrialReport | None:
        if self._trials is not None:
            return self._trials.report()
        asked = self.desired.trial
        return None if asked is None else TrialReport(asked.id, REFUSED, NO_TRIALS)

    def _update_report(self, updates: Updates) -> UpdateReport:
        status = updates.status()
        reason = status.reason[:MAX_REASON_CHARACTERS]
        return UpdateReport(status.release, status.state, reason, status.attempt, status.rollout)

    def _presence(self, online: bool) -> bytes:
        identity = self._identity
        return Presence(identity.device, online, self._store.epoch, identity.agent_version).to_bytes()

    def _serial(self) -> int:
        return self._store.fact(self._serial_name(), 0)

    def _serial_name(self) -> str:
        return f"serial/{self._channel}{self._era()}"

    def _era(self) -> str:
        era = self._trust.era()
        return f"/{era}" if era else ""
