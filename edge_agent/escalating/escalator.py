"""The escalator: draws hard answers, sends them to the hub's teacher, and hands its answers to clients and windows.

`draw` is in the way of an answer while the policy is on, and of no answer while it is off. What a client waits for
leaves in the thread of its request; the escalator's own thread sends the rest, lets clients go whose time is over, and
learns from the answers, which takes longer than anybody waits for. Without a broker, in a cool-down, or when a budget
is spent nothing is drawn. After a failure clients do not wait before the hub has answered again: a network that is cut
costs those their time who waited at that moment, and nobody else.

Locks, in this order: ``_changed`` (all that the escalator and its parts know), an asked request's own. Neither is held
while something is sent, written, told or fitted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_agent.clock import Clock, SystemClock
from edge_agent.escalating.allowance import Allowance
from edge_agent.escalating.asked import WAITING, Asked, AskedRow
from edge_agent.escalating.board import Board
from edge_agent.escalating.carriers import Carriers
from edge_agent.escalating.departures import Departures
from edge_agent.escalating.looking import Looks, Seen
from edge_agent.escalating.reach import Reach
from edge_agent.escalating.totals import Totals
from edge_agent.observing.policy import PolicyInForce
from edge_agent.ports import Array, Chosen, FeedbackItem, LoadedRelease, Recorder
from edgeloop.cascade.policy import EscalationLimits, EscalationPolicy
from edgeloop.protocol import TeacherAnswer

log = logging.getLogger(__name__)

#: Prediction ids that are longer cannot travel.
MOST_ID = 128
_LOGGED = 10


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
        self._allowance, self._recorder = allowance, recorder
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._looks, self._board, self._reach = Looks(device), Board(), Reach(self._clock)
        self._departures = Departures(
            self._changed, allowance, self._carriers, self._clock, sent=self._sent, unsent=self._unsent
        )
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
            seen = self._looks.at(loaded, prediction_id, segment, inputs, found)
            return None if seen is None else self._draw(policy, seen, timeout_s)
        except Exception:
            # Escalating must never cost an answer.
            if self._count(failed=1) <= _LOGGED:
                log.exception("an answer of release %s could not be escalated", loaded.digest)
            return None

    def _draw(self, policy: EscalationPolicy, seen: Seen, timeout_s: float) -> Asked | None:
        release, now, moment = seen.release, self._clock.wall(), self._clock.monotonic()
        with self._changed:
            drawn = self._allowance.draw(release.digest, seen.classes, seen.id, seen.signals, now)
            if self._allowance.due:  # what it had learned before a restart
                self._changed.notify()
            if not drawn.drawn.any():
                return None
            doubt = self._reach.doubt or self._leaving or self._reach.silent_s > 0
            waits = policy.mode == "wait" and not doubt and self._board.has_room
            wait_s = min(policy.deadline_ms / 1e3, timeout_s) if waits else None
            self._reach.probe()
        rows: list[AskedRow] = []
        chosen: dict[int, Chosen] = {}
        for index in np.flatnonzero(drawn.drawn).tolist():
            row = self._looks.row(seen, index, drawn, policy, wait_s)
            if not self._take(len(row.payload), now):
                break
            rows.append(row)
            chosen[index] = seen.chosen(index, row.probability)
        if not rows:
            return None
        self._recorder.choose(seen.id, chosen)
        return Asked(
            seen.id,
            release.digest,
            seen.segment,
            rows,
            names=release.package.meta.labels,
            classes=seen.classes,
            roles={output.name: output.role for output in release.session.outputs},
            until=None if wait_s is None else moment + wait_s,
            since=now,
            send=self._send,
            done=self._done,
        )

    def _held(self) -> str:
        """Why nothing is drawn now, whatever it is, or "". Without the lock: a moment later is as good."""
        return self._reach.held() or ("too many wait to be sent" if self._departures.full else "")

    def _take(self, size: int, now: float) -> bool:
        with self._changed:
            if self._allowance.take(size, now):
                return True
            self._totals["unsent"] += 1
            return False

    def _send(self, asked: Asked) -> None:
        with self._changed:
            self._board.add(asked)
        self._departures.send(asked)

    def _done(self, asked: Asked) -> None:
        with self._changed:
            self._board.done(asked)

    # -- the hub's side -------------------------------------------------------------------------------------------

    def join(self, carriers: Carriers, channel: Callable[[], str], silent_s: Callable[[], float] = float) -> None:
        """There is a line to the hub now.

        Args:
            carriers: to it.
            channel: gives the one that the device follows.
            silent_s: gives how long the hub has been silent behind a broker that is there; 0: it is not.
        """
        self._looks.channel = channel
        self._reach.join(carriers, silent_s)

    def take(self, answers: Sequence[TeacherAnswer]) -> None:
        """Take what the teacher says: clients first, then the windows."""
        labels: list[FeedbackItem] = []
        for answer in answers:
            with self._changed:
                asked = self._board.find(answer.id)
            row = None if asked is None else asked.take(answer)
            if asked is not None and row is None:
                continue  # it came twice
            if answer.label is None:
                self._failed(answer.reason or "the hub has no answer", unanswered=1)
                continue
            late = asked is not None and asked.waits and asked.until < self._clock.monotonic()
            with self._changed:
                self._reach.answered()
                self._totals["answered"] += 1
                self._totals["late"] += late
                if asked is not None and row is not None and row.better is not None:
                    self._totals["outvoted"] += row.better.outvoted
                    self._allowance.learn(asked.release, row.signals, row.better.label, row.probability)
                    if self._allowance.due:
                        self._changed.notify()
            if answer.learn and (row is None or row.better is not None):
                weight = self.policy.current.max_weight
                labels.append(FeedbackItem(answer.id, answer.label, answer.index, weight))
        if labels:
            self._recorder.taught(labels)

    def _carriers(self) -> Carriers | None:
        """The ways to the hub, while anything may take them."""
        return self._reach.carriers if self.policy.current.on else None

    def _sent(self, asked: Asked, size: int, answers: Sequence[TeacherAnswer]) -> None:
        self._count(sent=1, bytes=size)
        self._recorder.escalated(asked.release, asked.segment)
        if answers:
            self.take(answers)

    def _unsent(self, asked: Asked, row: AskedRow, reason: str) -> None:
        if row.state == WAITING:
            self._failed(reason, unsent=1)
        asked.give_up(row, reason)

    def _failed(self, reason: str, **more: int) -> None:
        with self._changed:
            self._reach.failed(reason, self.policy.current.cooldown_s)
            for name, by in more.items():
                self._totals[name] += by

    def _count(self, **more: int) -> int:
        with self._changed:
            for name, by in more.items():
                self._totals[name] += by
            return sum(self._totals[name] for name in more)

    # -- clients and operators ------------------------------------------------------------------------------------

    def answers(self, prediction_id: str) -> list[dict[str, Any]] | None:
        """What has become of the rows of a request that were escalated, as JSON types; None: none is known."""
        with self._changed:
            asked = self._board.find(prediction_id)
        return None if asked is None else asked.described(self._reach.unreachable())

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
                "trouble": self._reach.trouble,
                "clients_waiting": self._board.waiting,
                "pending": max(self._totals["sent"] - self._totals["answered"] - self._totals["unanswered"], 0),
                "hub_silent_s": round(self._reach.silent_s, 1),
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
        if self._reach.carriers is not None:
            self._reach.carriers.stop()
        self._allowance.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._departures.waiting or self._stopping or self._allowance.due):
                    self._changed.wait(self._board.patience_s(self._clock.monotonic()))
                late, next_one = self._late(), self._departures.take()
                if self._stopping and not late and next_one is None:
                    return
            try:
                for one in late:
                    one.expire()
                if next_one is not None:
                    self._departures.leave(*next_one)
                elif self._allowance.due:
                    self._allowance.fit()
            except Exception:
                log.exception("the escalator met an unforeseen error and goes on")

    def _late(self) -> list[Asked]:
        """Clients who are to wait no longer; the caller holds the lock."""
        if not self._board.waiting:
            return []
        if self._leaving or not self._reach.connected:
            return self._board.everybody()
        late = self._board.late(self._clock.monotonic())
        if late:
            self._reach.failed("a client has waited for its deadline", self.policy.current.cooldown_s)
        return late
