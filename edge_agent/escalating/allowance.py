"""What may be escalated yet: steering and budgets, remembered so that no restart frees a budget."""

from __future__ import annotations

import logging
from typing import Any

from edge_agent.observing.store import Store, StoreError
from edgeloop.cascade.budget import Budget
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.cascade.steering import Draw, Steering
from edgeloop.insights.sizes import Floats
from edgeloop.protocol import ProtocolError, decode, encode
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

_SPENT, _STEERING = "escalation/spent", "escalation/steering"
#: Escalations that are remembered as spent before they are: a killed agent loses them, and its disk is written less
#: often. Of a small budget it is a small part only.
AHEAD, AHEAD_PART = 16, 64
#: Bytes of an escalation, until one has been made.
_USUAL_BYTES = 1024
#: What the steering has learned is written so often, seconds: a killed agent learns it again.
SAVE_S = 60.0
_LIMIT = 4 << 20


@dataclass(frozen=True)
class Ahead:
    """What is written as spent: the budget's state, the limits that it is of, escalations and bytes since the start."""

    state: bytes
    limits: tuple[int | None, ...]
    count: int
    bytes: int


class Allowance:
    """Steering and budget over a store. Not thread-safe but for what writes and `fit`: the escalator's lock guards it.

    Args:
        store: the device's database.
        policy: of the channel, within the limits of the device's owner.
    """

    def __init__(self, store: Store, policy: EscalationPolicy) -> None:
        self._store, self._policy = store, policy
        self._budget = Budget.of(policy, self._note(_SPENT))
        self._steered = self._note(_STEERING)
        self._release = str(self._steered.get("release", ""))
        self._steering: Steering | None = None
        self._usual = _USUAL_BYTES
        # Escalations and bytes that were taken since the start, and what the store has as spent.
        self._taken = (0, 0)
        self._covered: Ahead | None = None
        self._saved_at = 0.0

    @property
    def share(self) -> float:
        """Of the answers that are escalated now."""
        return 0.0 if self._steering is None else self._steering.share

    @property
    def threshold(self) -> float | None:
        """Hardness from which an answer is more likely than not to be escalated now; None before the first one."""
        return None if self._steering is None else self._steering.threshold

    def use(self, policy: EscalationPolicy) -> None:
        """Go on under another policy."""
        self._policy = policy
        self._budget = Budget.of(policy, self._budget.plain())
        if self._steering is not None:
            self._steered, self._steering = self._steering.plain(), None

    def spent(self, now: float) -> bool:
        """Whether the budgets leave nothing now."""
        return self._budget.room(now, self._usual).rows < 1

    def draw(self, release: str, classes: int, prediction_id: str, signals: Floats, now: float) -> Draw:
        """Draw rows of one request.

        Args:
            release: digest of what answered.
            classes: K.
            prediction_id: of the request.
            signals: of its rows.
            now: unix seconds.
        """
        if self._steering is None or release != self._release:
            if self._steering is not None:
                self._steered = self._steering.plain()
            # What was learned of another release says nothing of this one.
            told = self._steered if release == self._release else {"share": self._steered.get("share")}
            policy = self._policy.of_release(release)
            self._steering, self._release = Steering(policy, classes, told), release
        return self._steering.draw(prediction_id, signals, now, self._budget.room(now, self._usual))

    def take(self, size: int, now: float) -> bool:
        """One escalation of so many bytes is about to leave: it is spent, whatever becomes of it; False: no room."""
        if self._budget.room(now, size).rows < 1:
            return False
        self._budget.spend(now, 1, size)
        self._usual = size
        self._taken = (self._taken[0] + 1, self._taken[1] + size)
        return True

    def learn(self, release: str, signals: Floats, label: int, probability: float) -> None:
        """The teacher has answered a row of a release; `fit` learns from it when that is `due`."""
        if self._steering is not None and release == self._release:
            self._steering.learn(signals, label, probability)

    @property
    def due(self) -> bool:
        """Whether `fit` would learn from answers that have come."""
        return self._steering is not None and self._steering.learner.due

    def fit(self) -> None:
        """Learn from the answers that have come. It takes milliseconds, and needs no lock: by one thread at a time."""
        if (steering := self._steering) is not None:
            steering.learner.fit()

    # -- remembering ----------------------------------------------------------------------------------------------

    def ahead(self, now: float) -> Ahead | None:
        """What `remember` has to write before anything that was taken leaves; None: the store has it already."""
        count, used = self._taken
        covered, limits = self._covered, self._limits()
        if not any(limit is not None for limit in limits):
            return None
        if covered is not None and limits == covered.limits and count <= covered.count and used <= covered.bytes:
            return None
        more = _reserve(limits, self._usual)
        budget = Budget.of(self._policy, self._budget.plain())
        budget.spend(now, more, more * self._usual)
        return Ahead(encode(budget.plain()), limits, count + more, used + more * self._usual)

    def remember(self, ahead: Ahead) -> None:
        """Write what `ahead` gave.

        Raises:
            StoreError: the database refused; then nothing may leave.
        """
        self._store.set_note(_SPENT, ahead.state)
        self._covered = ahead

    def writes(self, now: float, moment: float) -> bool:
        """Whether something is to be written when the next message leaves.

        Args:
            now: unix seconds.
            moment: monotonic seconds.
        """
        return moment >= self._saved_at + SAVE_S or self.ahead(now) is not None

    def to_save(self, moment: float) -> bytes | None:
        """What the steering has learned, for `save`; None: it is not time yet.

        Args:
            moment: monotonic seconds.
        """
        if self._steering is None or moment < self._saved_at + SAVE_S:
            return None
        self._saved_at = moment
        return encode({**self._steering.plain(), "release": self._release}, _LIMIT)

    def save(self, steering: bytes) -> None:
        """Write what `to_save` gave; trouble is logged: it is learned again."""
        try:
            self._store.set_note(_STEERING, steering)
        except StoreError as error:
            log.error("%s", error)

    def close(self) -> None:
        """Remember what was really spent, at an orderly end."""
        try:
            self._store.set_note(_SPENT, encode(self._budget.plain()))
        except StoreError as error:
            log.error("%s", error)
        self._saved_at = float("-inf")
        steering = self.to_save(0.0)
        if steering is not None:
            self.save(steering)

    def _limits(self) -> tuple[int | None, ...]:
        policy = self._policy
        return policy.per_hour, policy.per_day, policy.bytes_per_hour, policy.bytes_per_day

    def _note(self, name: str) -> dict[str, Any]:
        found = self._store.note(name)
        try:
            return {} if found is None else dict(decode(found, _LIMIT))
        except (ProtocolError, TypeError, ValueError) as error:
            log.warning("%s cannot be read (%s); it begins anew", name, error)
            return {}


def _reserve(limits: tuple[int | None, ...], size: int) -> int:
    """Escalations that are written as spent ahead of time."""
    per_hour, per_day, *of_bytes = limits
    left = [number for number in (per_hour, per_day) if number is not None]
    left += [number // max(size, 1) for number in of_bytes if number is not None]
    return min(AHEAD, min(left) // AHEAD_PART)
