"""What a release on probation is let through with, and what it goes back for."""

from __future__ import annotations

from edge_agent.ports import ServingCounters
from edge_agent.updates.probation import Probation, ProbationRules, Verdict

RULES = ProbationRules(seconds=1.0, min_predictions=10, max_seconds=60.0)
BEFORE_NS = 100_000


def watched(latencies_ns: list[list[int]], *, first: bool = False, previous: float | None = BEFORE_NS) -> Verdict:
    """The verdict after looks, a fifth of a second apart, that each found these predictions."""
    probation = Probation(RULES, previous_mean_ns=previous, first=first)
    predictions = total = 0
    verdict = Verdict(False)
    for number, found in enumerate(latencies_ns):
        predictions, total = predictions + len(found), total + sum(found)
        verdict = probation.look(ServingCounters(predictions, 0, 0, total), 0.2 * (number + 1))
        if verdict.done:
            break
    return verdict


def test_one_call_that_the_system_held_up_is_no_slowness() -> None:
    usual = [[BEFORE_NS] * 4] * 6
    assert watched([[BEFORE_NS, 50_000_000], *usual]) == Verdict(True)


def test_a_release_that_is_slow_at_every_look_goes_back() -> None:
    verdict = watched([[20 * BEFORE_NS] * 4] * 6)
    assert (verdict.done, verdict.reason) == (True, "a prediction takes 2.00 ms; it took 0.10 before")


def test_a_burst_in_one_look_is_not_enough_to_know() -> None:
    assert watched([[20 * BEFORE_NS] * 30, *[[]] * 9]) == Verdict(False)
    assert watched([[BEFORE_NS] * 30, *[[]] * 9], previous=None) == Verdict(True)


def test_without_traffic_it_is_watched_until_its_most_seconds_unless_it_is_the_first() -> None:
    assert watched([[]] * 299) == Verdict(False)
    assert watched([[]] * 300) == Verdict(True)
    assert watched([[]] * 5, first=True) == Verdict(True)


def test_failed_answers_and_answers_that_are_not_finite_send_it_back() -> None:
    def look(*counters: int) -> str:
        return Probation(RULES, previous_mean_ns=None, first=False).look(ServingCounters(*counters), 0.1).reason

    assert look(3, 2, 0, 0) == "2 of 5 answers on probation failed"
    assert look(20, 0, 2, 0) == "2 answers on probation were not finite"
    assert look(3, 1, 0, 0) == ""
