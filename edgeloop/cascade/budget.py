"""What may still be escalated in this hour and on this day, by the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeloop.cascade.policy import EscalationPolicy

HOUR_S, DAY_S = 3600.0, 86_400.0


class Room(NamedTuple):
    """What the budgets leave.

    Attributes:
        rows: that may be sent now.
        per_second: at which what is left lasts until the budget is renewed; infinite without a budget.
    """

    rows: float = math.inf
    per_second: float = math.inf


class Budget:
    """Escalations and bytes that were spent in the present hour and on the present day (UTC).

    A clock that goes back, as after a loss of power, opens no new hour: what was spent counts until a later one begins.

    Args:
        policy: says how much there is.
    """

    def __init__(self, policy: EscalationPolicy) -> None:
        self._limits = (
            (HOUR_S, policy.per_hour, policy.bytes_per_hour),
            (DAY_S, policy.per_day, policy.bytes_per_day),
        )
        self._spent = [[-1, 0, 0] for _ in self._limits]

    @classmethod
    def of(cls, policy: EscalationPolicy, plain: Mapping[str, Any] | None = None) -> Budget:
        """The budget of a policy, with what was spent by :meth:`plain`; whatever is no such thing counts as nothing."""
        budget = cls(policy)
        for spent, name in zip(budget._spent, ("hour", "day"), strict=True):
            told = (plain or {}).get(name)
            if isinstance(told, list) and len(told) == 3 and all(type(part) is int and part >= 0 for part in told):
                spent[:] = told
        return budget

    def plain(self) -> dict[str, Any]:
        """For whoever keeps it over a restart: lists of integers."""
        return dict(zip(("hour", "day"), (list(spent) for spent in self._spent), strict=True))

    def room(self, now: float, bytes_each: int) -> Room:
        """What may be sent.

        Args:
            now: unix seconds.
            bytes_each: of one escalation.
        """
        rows = per_second = math.inf
        for (length, most_rows, most_bytes), spent in zip(self._limits, self._spent, strict=True):
            current = max(int(now // length), spent[0])
            spent_rows, spent_bytes = spent[1:] if current == spent[0] else (0, 0)
            left = math.inf if most_rows is None else float(max(most_rows - spent_rows, 0))
            if most_bytes is not None:
                left = min(left, max(most_bytes - spent_bytes, 0) // max(bytes_each, 1))
            rows = min(rows, left)
            per_second = min(per_second, left / max((current + 1) * length - now, 1.0))
        return Room(rows, per_second)

    def spend(self, now: float, rows: int, size: int) -> None:
        """Count escalations.

        Args:
            now: unix seconds.
            rows: number of escalations.
            size: bytes of all of them.
        """
        for (length, _, _), spent in zip(self._limits, self._spent, strict=True):
            current = max(int(now // length), 0)
            if current > spent[0]:
                spent[:] = [current, 0, 0]
            spent[1] += rows
            spent[2] += size
