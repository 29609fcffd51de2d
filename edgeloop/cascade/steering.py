"""Steering: which rows of a request are escalated, so that the share and the budgets hold, whatever comes.

The state is small and pure: a threshold that gives way where too many inputs are hard, what the share has saved, how
fast predictions come, a cool-down, and what the teacher's answers have taught (`edgeloop.cascade.learning`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgeloop.cascade.budget import Room
from edgeloop.cascade.drawing import chances, places
from edgeloop.cascade.hardness import from_log_odds, log_odds
from edgeloop.cascade.learning import Learner
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.insights.sizes import Array, Floats

#: Log odds that the threshold moves by for each row that is escalated, less those that the share has room for. The
#: larger, the sooner a burst of hard inputs is met; the smaller, the less the threshold trembles (Robbins, Monro 1951).
STEP = 0.1
#: Rows that one step is computed from: a batch of more moves the threshold several times.
STEP_ROWS = 32
#: The threshold never rises beyond these log odds: one input in a thousand may then come back within a minute.
HIGHEST = 12.0
#: Rows that may be ahead of the share while the threshold is still on its way, at least; or `CREDIT_ROWS` times it.
LEAST_CREDIT, CREDIT_ROWS = 3.0, 100.0
#: Seconds over which the rate of predictions is measured.
RATE_S = 60.0
#: Predictions over which the running share is measured.
SHARE_ROWS = 500


class Draw(NamedTuple):
    """What was drawn of one request.

    Attributes:
        probability: chance of each row, given all that was known before it; 0 only where nothing may be sent now.
            float64 [n].
        drawn: bool [n].
        audit: bool [n]; of the drawn ones, those that the random share drew, which looks at no answer.
        hardness: float64 [n] in 0…1.
    """

    probability: Floats
    drawn: Array
    audit: Array
    hardness: Floats


class Steering:
    """Draws rows for escalation. Not thread-safe: the caller's lock guards it.

    Args:
        policy: of the channel, within the limits of the device's owner.
        classes: K of the release that answers.
        plain: what an earlier one's :meth:`plain` told, of any policy and the same release; what is no such thing is
            left alone.
    """

    def __init__(self, policy: EscalationPolicy, classes: int, plain: Mapping[str, Any] | None = None) -> None:
        told = plain if isinstance(plain, Mapping) else {}
        self._policy = policy
        self._lowest = float(log_odds(np.array(policy.threshold)))
        self._threshold = min(max(_number(told.get("threshold"), self._lowest), self._lowest), HIGHEST)
        self._credit = 0.0
        self._cool_until = -math.inf
        self._rows, self._weight, self._asked_at = 0.0, 0.0, math.inf
        self.share = min(max(_number(told.get("share"), 0.0), 0.0), 1.0)
        self.learner = Learner(policy.signals, classes, told.get("learned"))

    @property
    def threshold(self) -> float:
        """Hardness from which an input is more likely than not to be escalated now."""
        return float(from_log_odds(np.array(self._threshold)))

    def draw(self, prediction_id: str, signals: Floats, now: float, room: Room | None = None) -> Draw:
        """Draw rows of one request.

        Args:
            prediction_id: of the request.
            signals: of its rows, by `Gauge.signals`.
            now: unix seconds.
            room: what the budgets leave; None: there are none.
        """
        left = room or Room()
        hardness = self.learner.hardness(signals)
        share = min(self._policy.max_share, left.per_second / self._predictions_a_second(len(signals), now))
        if now < self._cool_until or left.rows < 1 or share <= 0:
            nothing = np.zeros(len(signals), dtype=bool)
            self._count(nothing)
            return Draw(np.zeros(len(signals)), nothing, nothing, hardness)
        floor = min(self._policy.floor, share)
        odds, probability = log_odds(hardness), np.empty(len(signals))
        for start in range(0, len(odds), STEP_ROWS):
            some = slice(start, start + STEP_ROWS)
            wanted = chances(odds[some], self._threshold, self._policy.softness, floor)
            probability[some] = self._affordable(wanted, share, floor)
            over = float((wanted - share).sum())
            self._threshold = min(max(self._threshold + STEP * over, self._lowest), HIGHEST)
        thrown = places(prediction_id, len(signals))
        drawn = thrown < probability
        if drawn.sum() > left.rows:  # of a batch, those that come first; after them nothing may be sent any more
            full = np.cumsum(drawn) - drawn >= left.rows
            drawn[full], probability[full] = False, 0.0
        self._count(drawn)
        return Draw(probability, drawn, drawn & (thrown < floor), hardness)

    def cool(self, now: float) -> None:
        """The hub could not answer: nothing is escalated for the policy's ``cooldown_s`` from now, unix seconds."""
        self._cool_until = now + self._policy.cooldown_s

    def learn(self, signals: Floats, label: int, probability: float) -> None:
        """A teacher has answered; when the ``learner`` is due, it has to fit.

        Args:
            signals: of the row, float [S].
            label: the teacher's class.
            probability: with which the row was drawn, > 0.
        """
        self.learner.learn(signals, label, min(1 / probability, self._policy.max_weight))

    def plain(self) -> dict[str, Any]:
        """For whoever keeps it over a restart: numbers and bytes."""
        return {"threshold": self._threshold, "share": self.share, "learned": self.learner.plain()}

    def _affordable(self, wanted: Floats, share: float, floor: float) -> Floats:
        """The chances, with what is above the floor made smaller where more is wanted than the share has saved."""
        saved = self._credit + (share - floor) * len(wanted)
        above = float((wanted - floor).sum())
        afforded = min(1.0, max(saved, 0.0) / above) if above > 0 else 1.0
        self._credit = min(saved - afforded * above, max(LEAST_CREDIT, CREDIT_ROWS * share))
        return np.asarray(floor + (wanted - floor) * afforded)

    def _predictions_a_second(self, rows: int, now: float) -> float:
        """Running rate; a clock that jumps counts as no time."""
        kept = math.exp(-min(max(now - self._asked_at, 0.0), 50 * RATE_S) / RATE_S)
        self._rows, self._asked_at = kept * self._rows + rows, now
        self._weight = 1 - kept * (1 - self._weight)  # 1 - e^(-t/τ): how much of the past is known
        return self._rows / (RATE_S * max(self._weight, 1 / RATE_S))

    def _count(self, drawn: Array) -> None:
        kept = math.exp(-len(drawn) / SHARE_ROWS)
        self.share = kept * self.share + (1 - kept) * float(drawn.mean()) if len(drawn) else self.share


def _number(told: Any, default: float) -> float:
    return float(told) if isinstance(told, float | int) and math.isfinite(told) else default
