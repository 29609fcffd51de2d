"""Whether the hub's teacher can be asked now, as far as the device knows."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.clock import Clock
from edge_agent.escalating.carriers import Carriers

log = logging.getLogger(__name__)

#: After a failure one escalation at a time tries whether the hub answers; one that was not answered for so long counts
#: no more, seconds: a person may be the teacher.
PROBE_S = 10.0


class Reach:
    """What is known of the way to the teacher. Its owner's lock guards what changes it.

    Whoever only asks needs no lock: a moment later is as good.

    Attributes:
        carriers: the ways to the hub, or None: there is none yet.
        doubt: whether the last that was asked was not answered; clients do not wait then.
        trouble: why, or "".

    Args:
        clock: the device's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.carriers: Carriers | None = None
        self._silent_s: Callable[[], float] = float
        self.doubt, self.trouble = False, ""
        self._probe_until = self._cool_until = 0.0

    def join(self, carriers: Carriers, silent_s: Callable[[], float]) -> None:
        """There is a line to the hub now; ``silent_s`` gives how long the hub behind it has been silent, or 0."""
        self._silent_s, self.carriers = silent_s, carriers

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self.carriers is not None and self.carriers.connected

    @property
    def silent_s(self) -> float:
        """How long the hub has acknowledged nothing behind a broker that is there, seconds; 0: it does."""
        return self._silent_s()

    def unreachable(self) -> str:
        """Why what was sent is not answered now, or ""."""
        if not self.connected:
            return "the broker is away"
        silent_s = self.silent_s
        return f"the hub has acknowledged nothing for {silent_s:.0f} s" if silent_s else ""

    def held(self) -> str:
        """Why nobody is asked now, or ""."""
        if not self.connected:
            return "the broker is away"
        moment = self._clock.monotonic()
        if moment < self._probe_until and (unreachable := self.unreachable()):
            return unreachable
        if moment < self._cool_until:
            return f"the hub could not answer: {self.trouble}"
        if self.doubt and moment < self._probe_until:
            return f"it is being tried whether the hub answers again: {self.trouble}"
        return ""

    def probe(self) -> None:
        """Somebody asks now; while there is doubt, nobody else does."""
        self._probe_until = self._clock.monotonic() + PROBE_S

    def answered(self) -> None:
        """The hub has answered."""
        self.doubt, self.trouble = False, ""

    def failed(self, reason: str, cooldown_s: float) -> None:
        """The hub could not answer; for so many seconds nobody is asked."""
        if reason != self.trouble:
            log.warning("an escalation was not answered: %s", reason)
        self.doubt, self.trouble, self._probe_until = True, reason, 0.0
        self._cool_until = self._clock.monotonic() + cooldown_s
