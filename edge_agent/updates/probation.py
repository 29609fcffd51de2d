"""Probation: is a new release, which serves already, doing well? Pure."""

from __future__ import annotations

from edge_agent.ports import ServingCounters
from edgeloop.records import dataclass

#: Fewer requests than this say nothing about a rate.
FEW = 5


@dataclass(frozen=True)
class ProbationRules:
    """What a release on probation must show.

    Attributes:
        seconds: least time on probation.
        min_predictions: least number of predictions, unless ``max_seconds`` have passed first.
        max_seconds: after so long a device without traffic commits as well.
        max_error_share: share of failed or non-finite answers, in 0…1, beyond which it goes back.
        max_slowdown: mean latency as a multiple of the previous release's, beyond which it goes back.
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


def judge(
    rules: ProbationRules, counters: ServingCounters, elapsed_s: float, *, previous_mean_ns: float | None, first: bool
) -> Verdict:
    """Look at a release on probation.

    Args:
        rules: what it must show.
        counters: since the switch.
        elapsed_s: since the switch.
        previous_mean_ns: mean latency of the release before it, or None when there is none to compare with.
        first: whether there is no release to go back to; then traffic is not waited for.
    """
    answered = counters.predictions + counters.errors
    if answered >= FEW and counters.errors > rules.max_error_share * answered:
        return Verdict(True, f"{counters.errors} of {answered} answers on probation failed")
    if counters.nonfinite and counters.nonfinite > rules.max_error_share * (counters.predictions + counters.nonfinite):
        return Verdict(True, f"{counters.nonfinite} answers on probation were not finite")
    if previous_mean_ns and counters.predictions >= max(FEW, rules.min_predictions):
        mean = counters.latency_ns / counters.predictions
        if mean > rules.max_slowdown * previous_mean_ns:
            return Verdict(True, f"a prediction takes {mean / 1e6:.2f} ms; it took {previous_mean_ns / 1e6:.2f} before")
    if elapsed_s < rules.seconds:
        return Verdict(False)
    return Verdict(first or counters.predictions >= rules.min_predictions or elapsed_s >= rules.max_seconds)
