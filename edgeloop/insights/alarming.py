"""How comparisons become an alarm, on the device and in the hub: how often they may err, how many in a row count."""

from __future__ import annotations

from edgeloop.records import dataclass

YEAR_S = 365.25 * 86_400.0
#: Comparisons in a row without drift after which an alarm is closed.
QUIET_WINDOWS = 5


def alpha_of(seconds: float, *, alarms_per_year: float | None, consecutive: int, at_most: float) -> float:
    """The chance of error that one comparison may use up, so that a year has no more false alarms than was set.

    The year's number r is spent evenly over time: a comparison of a stretch of T seconds may err with probability

        α = consecutive · r · T / year.

    A false alarm takes ``consecutive`` comparisons that erred, no comparison serves two alarms, and in the mean Σα of a
    year's comparisons err. So a year has at most Σα / consecutive = r false alarms. Nothing is supposed of how the
    comparisons hang together, which they do, since all are made with the same reference.

    Args:
        seconds: T, from the end of the previous stretch to the end of this one.
        alarms_per_year: r, or None: each comparison has ``at_most``.
        consecutive: drifted comparisons in a row that raise an alarm.
        at_most: no comparison has more, however long nothing was compared.
    """
    if alarms_per_year is None:
        return at_most
    return min(at_most, consecutive * alarms_per_year * max(seconds, 1e-3) / YEAR_S)


@dataclass(frozen=True)
class Streak:
    """Comparisons in a row that say the same.

    Attributes:
        drifted: number of the latest ones that saw drift; 0 when the last one did not.
        since: start of the first of them, unix seconds, or None.
        settled: end of the first of them, unix seconds, or None.
        quiet: number of the latest ones that saw none.
    """

    drifted: int = 0
    since: float | None = None
    settled: float | None = None
    quiet: int = 0

    def next(self, since: float, until: float, drifted: bool) -> Streak:
        """The streak after one more comparison, of what was seen from ``since`` to ``until``; unix seconds."""
        if not drifted:
            return Streak(quiet=self.quiet + 1)
        if self.since is None or self.settled is None:
            return Streak(1, since, until)
        return Streak(self.drifted + 1, self.since, self.settled)

    def raises(self, consecutive: int) -> bool:
        """Whether it is long enough for an alarm."""
        return self.drifted >= consecutive

    def clears(self) -> bool:
        """Whether the drift has been gone for long enough to close an alarm."""
        return self.quiet >= QUIET_WINDOWS
