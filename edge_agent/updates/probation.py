"""Probation: is a new release, which serves already, doing well? Pure."""

from __future__ import annotations

import statistics
from collections import deque

from edge_agent.ports import ServingCounters
from edgeloop.records import dataclass

#: Fewer requests than this say nothing about a rate.
FEW = 5
#: Looks that found predictions, of which the median is taken: one call that the system held up is in one of them.
LOOKS = 3
#: The latest of them that are remembered: a minute of them, ten a second. Whoever watches a release for a day asks
#: whether it is slow now, too.
MOST_LOOKS = 600


@dataclass(frozen=True)
class ProbationRules:
    """What a release on probation must show.

    Attributes:
        seconds: least time on probation.
        min_predictions: least number of predictions, unless ``max_seconds`` have passed first.
        max_seconds: after so long a device without traffic commits as well.
        max_error_share: share of failed or non-finite answers, in 0…1, beyond which it goes back.
        max_slowdown: latency as a multiple of the previous release's mean, beyond which it goes back.
    """

    seconds: float
    min_predictions: int
    max_seconds: float
    max_error_share: float = 0.05
    max_slowdown: float = 10.0


@dataclass(frozen=True)
class Verdict:
    """``done``: probation has ended; ``reason``: why it failed, or "" when it went well."""

    done: bool
    reason: str = ""


class Probation:
    """One release on probation, looked at again and again.

    Args:
        rules: what it must show.
        before: counters of the release before it; without predictions there is none to compare with.
        first: whether there is no release to go back to; then traffic is not waited for.
    """

    def __init__(self, rules: ProbationRules, *, before: ServingCounters, first: bool) -> None:
        self._rules, self._before, self._first = rules, before, first
        self._seen = ServingCounters(0, 0, 0, 0, 0, 0)
        self._slowdowns: deque[float] = deque(maxlen=MOST_LOOKS)

    def look(self, counters: ServingCounters, elapsed_s: float) -> Verdict:
        """What is known by now.

        Args:
            counters: since the switch.
            elapsed_s: since the switch.
        """
        rules = self._rules
        self._note_latency(counters)
        # Requests, not rows: a client whose every second batch of a hundred fails has half of its answers failed.
        answered = counters.requests + counters.errors
        if answered >= FEW and counters.errors > rules.max_error_share * answered:
            return Verdict(True, f"{counters.errors} of {answered} answers on probation failed")
        if counters.nonfinite and counters.nonfinite > rules.max_error_share * (
            counters.predictions + counters.nonfinite
        ):
            return Verdict(True, f"{counters.nonfinite} answers on probation were not finite")
        enough = counters.predictions >= rules.min_predictions
        looks = len(self._slowdowns)
        if enough and counters.predictions >= FEW and looks >= LOOKS:
            slowdown = statistics.median(self._slowdowns)
            if slowdown > rules.max_slowdown:
                took_ms = self._before.latency_ns / self._before.predictions / 1e6
                return Verdict(True, f"a prediction takes {slowdown:.1f} times what it took before, {took_ms:.2f} ms")
        if elapsed_s < rules.seconds:
            return Verdict(False)
        known = enough and (not self._before.predictions or looks >= min(LOOKS, rules.min_predictions))
        return Verdict(self._first or known or elapsed_s >= rules.max_seconds)

    def _note_latency(self, counters: ServingCounters) -> None:
        """How much slower the predictions since the last look that found some are than those of the release before.

        Requests of many rows become requests of one, or the other way round, and the model is the same: a row costs
        less in a larger batch, a run costs more. What is slower by the row and by the run is slower whatever the batch.
        """
        before, seen = self._before, self._seen
        predictions, runs = counters.predictions - seen.predictions, counters.runs - seen.runs
        # A look may fall between the count of a run and that of its rows: both are in the next one then.
        if predictions > 0 and runs > 0 and before.predictions:
            ratio = (counters.latency_ns - seen.latency_ns) / before.latency_ns
            self._slowdowns.append(ratio * min(before.predictions / predictions, before.runs / runs))
            self._seen = counters
