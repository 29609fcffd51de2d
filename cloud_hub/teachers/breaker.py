"""A circuit breaker: whoever fails a few times in a row is not asked for a while, then asked once to see. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Failures in a row that open it.
FAILURES = 3
#: First and longest rest, seconds; each further failure doubles it.
REST_S = (1.0, 60.0)


@dataclass
class Breaker:
    """Closed: everything goes through. Open: nothing, until ``until``; then one question, whose outcome decides.

    Attributes:
        failures: in a row.
        until: when the next question may be asked, by the caller's clock; 0 while it is closed.
        trying: whether that question is under way.
    """

    failures: int = 0
    until: float = 0.0
    trying: bool = False

    def state(self, now: float) -> str:
        """``closed``, ``open``, or ``trying``: the next question decides."""
        if not self.until:
            return "closed"
        return "open" if now < self.until else "trying"

    def admits(self, now: float) -> bool:
        """Whether a question may be asked; whoever gets True asks it, and says how it went."""
        if not self.until:
            return True
        if now < self.until or self.trying:
            return False
        self.trying = True
        return True

    def went_well(self) -> None:
        """A question was answered."""
        self.failures, self.until, self.trying = 0, 0.0, False

    def went_wrong(self, now: float, retry_after_s: float = 0.0) -> None:
        """A question was not answered, by the teacher's fault.

        Args:
            now: by the caller's clock.
            retry_after_s: what the teacher asks for; it opens the breaker whatever the number of failures.
        """
        self.failures, self.trying = self.failures + 1, False
        if self.failures >= FAILURES or retry_after_s > 0:
            first, longest = REST_S
            rest = min(longest, first * 2.0 ** min(max(self.failures - FAILURES, 0), 30))
            self.until = now + max(rest, min(retry_after_s, 3600.0))
