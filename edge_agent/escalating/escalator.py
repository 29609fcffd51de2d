"""The escalator: draws hard answers, sends them to the hub's teacher, and hands its answers to clients and windows.

`draw` is in the way of an answer while the policy is on, and of no answer while it is off. What a client waits for
leaves in the thread of its request; the rest, and what something has to be written for first, in the escalator's own
thread, which also lets clients go whose time is over. Without a broker, in a cool-down, or when a budget is spent
nothing is drawn. After a failure clients do not wait before the hub has answered again: a network that is cut costs
those their time who waited at that moment, and nobody else.

Locks, in this order: ``_changed`` (all that the escalator knows), an asked request's own. Neither is held while
something is sent, written or told.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_agent.clock import Clock, SystemClock
from edge_agent.escalating.allowance import Allowance
from edge_agent.escalating.asked import WAITING, Asked, AskedRow
from edge_agent.escalating.carriers import Carriers, Outcome
from edge_agent.inputs import tensors_of
from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.store import StoreError
from edge_agent.ports import Array, Chosen, FeedbackItem, LoadedRelease, Recorder
from edgeloop.cascade.hardness import Gauge
from edgeloop.cascade.policy import EscalationLimits, EscalationPolicy
from edgeloop.protocol import Escalation, TeacherAnswer
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

#: Requests whose better answers clients may ask for; the oldest are forgotten.
MOST_KEPT = 4096
#: Messages, and their bytes, that wait to be sent; what is more is not escalated.
MOST_QUEUED, MOST_QUEUED_BYTES = 256, 32 << 20
#: Clients that wait at once; each takes a connection, or a thread of the gRPC door.
MOST_WAITING = 32
#: While clients wait, so often it is looked whether the broker is still there, seconds.
LOOK_S = 0.05
#: Prediction ids that are longer cannot travel.
MOST_ID = 128
#: After a failure one escalation at a time tries whether the hub answers; one that was not answered for so long counts
#: no more, seconds: a person may be the teacher.
PROBE_S = 10.0
_LOGGED = 10


@dataclass(frozen=True)
class Totals:
    """Running totals of rows since the start.

    Attributes:
        sent: that left.
        bytes: of their messages.
        answered: for which a label has come.
        outvoted: of these, those where the device's own answer stands against the teacher's.
        unanswered: for which the hub said that there will be none.
        late: whose client had waited long enough before.
        unsent: that were drawn and could not leave.
        failed: requests that could not be looked at.
    """

    sent: int = 0
    bytes: int = 0
    answered: int = 0
    outvoted: int = 0
    unanswered: int = 0
    late: int = 0
    unsent: int = 0
    failed: int = 0


class Escalator:
    """Implements :class:`edge_agent.ports.Escalating`.

    Attributes:
        on: whether the policy escalates anything.

    Args:
        policy: in force.
        allowance: what may be escalated yet.
        recorder: of predictions.
        device: its name.
        clock: the device's.
    """

    def __init__(
        self,
        policy: PolicyInForce[EscalationPolicy, EscalationLimits],
        allowance: Allowance,
        recorder: Recorder,
        device: str,
        clock: Clock | None = None,
    ) -> None:
        self.policy = policy
        self._allowance, self._recorder, self._device = allowance, recorder, device
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._carriers: Carriers | None = None
        self._channel: Callable[[], str] = str
        self._silent_s: Callable[[], float] = float
        self._board: OrderedDict[str, Asked] = OrderedDict()
        self._queue: deque[tuple[Asked, AskedRow]] = deque()
        self._queued_bytes = 0
        self._waiting: set[Asked] = set()
        self._doubt = False
        self._probe_until = self._cool_until = 0.0
        self._gauged = "", Gauge(None, 1)
        self._last_reason = ""
        self._totals = dict.fromkeys(asdict(Totals()), 0)
        self._leaving = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="escalating", daemon=True)
        self.on = False
        policy.follow(self._follow)

    def _follow(self, policy: EscalationPolicy) -> None:
        with self._changed:
            self._allowance.use(policy)
        self.on = policy.on

    # -- the data plane's side ------------------------------------------------------------------------------------

    def draws(self) -> bool:
        """See :class:`edge_agent.serving.calls.Escalating`."""
        return self.on and not self._held()

    def draw(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
        timeout_s: float,
    ) -> Asked | None:
        """Draw rows of a request that is recorded next; never raises."""
        policy = self.policy.current
        # The hub answers a row of a prediction once, so that the same id again would get the first one's answer.
        fresh = len(prediction_id) <= MOST_ID and prediction_id not in self._board
        if not policy.on or not fresh or self._held():
            return None
        try:
            found = {name: outputs[place] for name, place in places.items()}
            return self._draw(policy, loaded, prediction_id, inputs, found, segment, timeout_s)
        except Exception:
            # Escalating must never cost an answer.
            if self._count(failed=1) <= _LOGGED:
                log.exception("an answer of release %s could not be escalated", loaded.digest)
            return None

    def _draw(
        self,
        policy: EscalationPolicy,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Mapping[str, Array],
        found: Mapping[str, Array],
        segment: str,
        timeout_s: float,
    ) -> Asked | None:
        now, moment = self._clock.wall(), self._clock.monotonic()
        scores = loaded.session.probabilities(found)
        if scores is None or scores.ndim != 2:
            return None
        name = loaded.session.output("features")
        features = found[name].reshape(len(scores), -1) if name is not None and name in found else None
        signals = self._gauge(loaded, scores.shape[1]).signals(scores, features, next(iter(inputs.values())))
        with self._changed:
            drawn = self._allowance.draw(loaded.digest, scores.shape[1], prediction_id, signals, now)
            if not drawn.drawn.any():
                return None
            doubt = self._doubt or self._leaving or self._silent_s() > 0
            waits = policy.mode == "wait" and not doubt and len(self._waiting) < MOST_WAITING
            wait_s = min(policy.deadline_ms / 1e3, timeout_s)
            self._probe_until = moment + PROBE_S
        rows: list[AskedRow] = []
        chosen: dict[int, Chosen] = {}
        for index in np.flatnonzero(drawn.drawn).tolist():
            probability, hardness = float(drawn.probability[index]), float(drawn.hardness[index])
            message = Escalation(
                device=self._device,
                channel=self._channel(),
                release=loaded.digest,
                id=prediction_id,
                form=policy.travels,
                tensors=tensors_of(
                    policy.travels,
                    inputs,
                    index,
                    features=None if features is None or name is None else (name, features),
                    small_side=policy.small_side,
                ),
                probability=probability,
                predicted=int(scores[index].argmax()),
                confidence=min(float(scores[index].max()), 1.0),
                index=index,
                audit=bool(drawn.audit[index]),
                wait=waits,
                deadline_ms=int(wait_s * 1e3) if waits else 0,
                segment=segment,
                hardness=float(drawn.hardness[index]),
            )
            payload = message.to_bytes()
            if not self._take(len(payload), now):
                break
            rows.append(AskedRow(index, message.predicted, probability, hardness, signals[index], payload))
            kept = None if features is None else features[index].astype(np.float32)
            chosen[index] = Chosen(probability, kept)
        if not rows:
            return None
        self._recorder.choose(prediction_id, chosen)
        return Asked(
            prediction_id,
            loaded.digest,
            segment,
            rows,
            names=loaded.package.meta.labels,
            classes=scores.shape[1],
            roles={output.name: output.role for output in loaded.session.outputs},
            until=moment + wait_s if waits else None,
            since=now,
            send=self._send,
            done=self._done,
        )

    def _gauge(self, loaded: LoadedRelease, classes: int) -> Gauge:
        release, gauge = self._gauged
        if release != loaded.digest:
            gauge = Gauge(loaded.profile, classes)
            self._gauged = loaded.digest, gauge
        return gauge

    def _held(self) -> str:
        """Why nothing is drawn now, whatever it is, or "". Without the lock: a moment later is as good."""
        if self._carriers is None or not self._carriers.connected:
            return "the broker is away"
        moment = self._clock.monotonic()
        if moment < self._probe_until and (unreachable := self._unreachable()):
            return unreachable
        if moment < self._cool_until:
            return f"the hub could not answer: {self._last_reason}"
        if self._doubt and moment < self._probe_until:
            return f"it is being tried whether the hub answers again: {self._last_reason}"
        if len(self._queue) >= MOST_QUEUED or self._queued_bytes >= MOST_QUEUED_BYTES:
            return "too many wait to be sent"
        return ""

    def _unreachable(self) -> str:
        """Why what was sent is not answered now, or ""."""
        if self._carriers is None or not self._carriers.connected:
            return "the broker is away"
        silent_s = self._silent_s()
        return f"the hub has acknowledged nothing for {silent_s:.0f} s" if silent_s else ""

    def _take(self, size: int, now: float) -> bool:
        with self._changed:
            if self._allowance.take(size, now):
                return True
            self._totals["unsent"] += 1
            return False

    def _send(self, asked: Asked) -> None:
        with self._changed:
            self._board[asked.id] = asked
            self._board.move_to_end(asked.id)
            while len(self._board) > MOST_KEPT:
                self._board.popitem(last=False)
            if asked.waits:
                self._waiting.add(asked)
            # A client waits, and nothing has to be written first: another thread would only be later.
            clock, queued = self._clock, bool(self._queue)
            at_once = asked.waits and not queued and not self._allowance.writes(clock.wall(), clock.monotonic())
            if not at_once:
                for row in asked.of_index.values():
                    self._queue.append((asked, row))
                    self._queued_bytes += len(row.payload)
        if at_once:
            self._leave_at_once(asked)
        with self._changed:
            self._changed.notify()

    def _leave_at_once(self, asked: Asked) -> None:
        """Send all rows from the thread of the request; never raises."""
        for row in asked.of_index.values():
            try:
                self._hand_over(asked, row)
            except Exception:
                log.exception("an escalation could not leave for an unforeseen reason")
                self._unsent(asked, row, "an unforeseen error, see the log")

    def _done(self, asked: Asked) -> None:
        with self._changed:
            self._waiting.discard(asked)

    # -- the hub's side -------------------------------------------------------------------------------------------

    def join(self, carriers: Carriers, channel: Callable[[], str], silent_s: Callable[[], float] = float) -> None:
        """There is a line to the hub now.

        Args:
            carriers: to it.
            channel: gives the one that the device follows.
            silent_s: gives how long the hub has been silent behind a broker that is there; 0: it is not.
        """
        self._channel, self._silent_s, self._carriers = channel, silent_s, carriers

    def take(self, answers: Sequence[TeacherAnswer]) -> None:
        """Take what the teacher says: clients first, then the windows."""
        labels: list[FeedbackItem] = []
        for answer in answers:
            with self._changed:
                asked = self._board.get(answer.id)
            row = None if asked is None else asked.take(answer)
            if asked is not None and row is None:
                continue  # it came twice
            if answer.label is None:
                self._failed(answer.reason or "the hub has no answer", unanswered=1)
                continue
            late = asked is not None and asked.waits and asked.until < self._clock.monotonic()
            with self._changed:
                self._doubt, self._last_reason = False, ""
                self._totals["answered"] += 1
                self._totals["late"] += late
                if asked is not None and row is not None and row.better is not None:
                    self._totals["outvoted"] += row.better.outvoted
                    self._allowance.learn(asked.release, row.signals, row.better.label, row.probability)
            if answer.learn and (row is None or row.better is not None):
                weight = self.policy.current.max_weight
                labels.append(FeedbackItem(answer.id, answer.label, answer.index, weight))
        if labels:
            self._recorder.taught(labels)

    # -- clients and operators ------------------------------------------------------------------------------------

    def answers(self, prediction_id: str) -> list[dict[str, Any]] | None:
        """What has become of the rows of a request that were escalated, as JSON types; None: none is known."""
        with self._changed:
            asked = self._board.get(prediction_id)
        return None if asked is None else asked.described(self._unreachable())

    def status(self) -> dict[str, Any]:
        """What status shows, as JSON types."""
        policy = self.policy.current
        with self._changed:
            held = self._held() if policy.on else ""
            if not held and policy.on and self._allowance.spent(self._clock.wall()):
                held = "a budget is spent"
            return {
                "mode": policy.mode if policy.on else "off",
                "policy": policy.to_wire(),
                "share": self._allowance.share,
                "threshold": self._allowance.threshold,
                "held": held,
                "trouble": self._last_reason,
                "clients_waiting": len(self._waiting),
                "pending": max(self._totals["sent"] - self._totals["answered"] - self._totals["unanswered"], 0),
                "hub_silent_s": round(self._silent_s(), 1),
                **self._totals,
            }

    # -- its own thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that sends."""
        self._thread.start()

    def let_go(self) -> None:
        """Nobody waits for a better answer from now on; those who do get the edge's own."""
        with self._changed:
            self._leaving = True
            self._changed.notify()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread, and remember what was spent."""
        self.let_go()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._carriers is not None:
            self._carriers.stop()
        self._allowance.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._queue and not self._stopping:
                    self._changed.wait(self._patience_s())
                asked, row = self._queue.popleft() if self._queue else (None, None)
                late = self._late()
                if row is not None:
                    self._queued_bytes -= len(row.payload)
                elif self._stopping and not late:
                    return
            try:
                for one in late:
                    one.expire()
                if asked is not None and row is not None:
                    self._leave(asked, row)
            except Exception:
                log.exception("the escalator met an unforeseen error and goes on")

    def _patience_s(self) -> float | None:
        """Until the next client has waited long enough; the caller holds the lock."""
        if not self._waiting:
            return None
        soonest = min(asked.until for asked in self._waiting) - self._clock.monotonic()
        return max(0.0, min(soonest, LOOK_S))

    def _late(self) -> list[Asked]:
        """Clients who are to wait no longer; the caller holds the lock."""
        if not self._waiting:
            return []
        if self._leaving or self._carriers is None or not self._carriers.connected:
            return list(self._waiting)
        now = self._clock.monotonic()
        late = [asked for asked in self._waiting if asked.until <= now]
        if late:
            self._note_failure("a client has waited for its deadline")
        return late

    def _leave(self, asked: Asked, row: AskedRow) -> None:
        """Send one row, when the store has it as spent."""
        with self._changed:
            ahead = self._allowance.ahead(self._clock.wall())
            steering = self._allowance.to_save(self._clock.monotonic())
        if steering is not None:
            self._allowance.save(steering)
        if ahead is not None:
            try:
                self._allowance.remember(ahead)
            except StoreError as error:
                return self._unsent(asked, row, str(error))
        self._hand_over(asked, row)

    def _hand_over(self, asked: Asked, row: AskedRow) -> None:
        """Send one row that is spent in the store."""
        policy, carriers, payload = self.policy.current, self._carriers, row.payload
        if carriers is None or not policy.on:
            return self._unsent(asked, row, "escalation was turned off")

        def told(outcome: Outcome) -> None:
            row.payload = b""
            if not outcome.left:
                return self._unsent(asked, row, outcome.reason)
            self._count(sent=1, bytes=len(payload))
            self._recorder.escalated(asked.release, asked.segment)
            if outcome.answers:
                self.take(outcome.answers)

        wait_s = max(asked.until - self._clock.monotonic(), 0.001) if asked.waits else None
        carriers.send(payload, wait_s, told)

    def _unsent(self, asked: Asked, row: AskedRow, reason: str) -> None:
        if row.state == WAITING:
            self._failed(reason, unsent=1)
        asked.give_up(row, reason)

    def _failed(self, reason: str, **more: int) -> None:
        with self._changed:
            self._note_failure(reason)
            for name, by in more.items():
                self._totals[name] += by

    def _note_failure(self, reason: str) -> None:
        """The hub could not answer; the caller holds the lock."""
        if reason != self._last_reason:
            log.warning("an escalation was not answered: %s", reason)
        self._doubt, self._last_reason, self._probe_until = True, reason, 0.0
        self._cool_until = self._clock.monotonic() + self.policy.current.cooldown_s

    def _count(self, **more: int) -> int:
        with self._changed:
            for name, by in more.items():
                self._totals[name] += by
            return sum(self._totals[name] for name in more)
