"""What a release on probation is let through with, and what it goes back for."""

from __future__ import annotations

import pytest

from edge_agent.ports import ServingCounters
from edge_agent.updates.probation import Probation, ProbationRules, Verdict

RULES = ProbationRules(seconds=1.0, min_predictions=10, max_seconds=60.0)
BEFORE_NS = 100_000
#: A thousand requests of one row.
BEFORE = ServingCounters(1000, 0, 0, 1000 * BEFORE_NS, 1000, 1000)
NOTHING = ServingCounters(0, 0, 0, 0, 0, 0)


def alone(requests: int, latency_ns: int) -> ServingCounters:
    """Requests of one row, each in a run of its own."""
    return ServingCounters(requests, 0, 0, latency_ns, requests, requests)


def watched(latencies_ns: list[list[int]], *, first: bool = False, before: ServingCounters = BEFORE) -> Verdict:
    """The verdict after looks, a fifth of a second apart, that each found these predictions."""
    probation = Probation(RULES, before=before, first=first)
    predictions = total = 0
    verdict = Verdict(False)
    for number, found in enumerate(latencies_ns):
        predictions, total = predictions + len(found), total + sum(found)
        verdict = probation.look(alone(predictions, total), 0.2 * (number + 1))
        if verdict.done:
            break
    return verdict


def test_one_call_that_the_system_held_up_is_no_slowness() -> None:
    usual = [[BEFORE_NS] * 4] * 6
    assert watched([[BEFORE_NS, 50_000_000], *usual]) == Verdict(True)


def test_a_release_that_is_slow_at_every_look_goes_back() -> None:
    verdict = watched([[20 * BEFORE_NS] * 4] * 6)
    assert (verdict.done, verdict.reason) == (True, "a prediction takes 20.0 times what it took before, 0.10 ms")


@pytest.mark.parametrize(("rows_before", "rows"), [(40, 1), (1, 40), (1, 1), (40, 40), (7, 16)])
@pytest.mark.parametrize(("slower", "goes_back"), [(1, False), (9, False), (800, True)])
def test_requests_of_another_size_are_no_slowness(rows_before: int, rows: int, slower: int, goes_back: bool) -> None:
    def counters(runs: int, rows: int, slower: int) -> ServingCounters:
        return ServingCounters(runs * rows, 0, 0, runs * slower * (200_000 + 5_000 * rows), runs, runs)

    probation = Probation(RULES, before=counters(1000, rows_before, 1), first=False)
    verdicts = [probation.look(counters(10 * look, rows, slower), 0.4 * look) for look in (1, 2, 3)]
    assert verdicts[-1].done and ("times what it took before" in verdicts[-1].reason) == goes_back


def test_a_look_between_the_count_of_a_run_and_of_its_rows_waits_for_both() -> None:
    probation = Probation(RULES, before=BEFORE, first=False)
    assert not probation.look(ServingCounters(4, 0, 0, 5 * BEFORE_NS, 5, 4), 0.2).done
    assert not probation.look(alone(5, 5 * BEFORE_NS), 0.4).done
    assert not probation.look(alone(12, 12 * BEFORE_NS), 0.9).done
    assert probation.look(alone(20, 20 * BEFORE_NS), 1.1) == Verdict(True)


def test_a_burst_in_one_look_is_not_enough_to_know() -> None:
    assert watched([[20 * BEFORE_NS] * 30, *[[]] * 9]) == Verdict(False)
    assert watched([[BEFORE_NS] * 30, *[[]] * 9], before=NOTHING) == Verdict(True)


def test_without_traffic_it_is_watched_until_its_most_seconds_unless_it_is_the_first() -> None:
    assert watched([[]] * 299) == Verdict(False)
    assert watched([[]] * 300) == Verdict(True)
    assert watched([[]] * 5, first=True) == Verdict(True)


def test_failed_answers_and_answers_that_are_not_finite_send_it_back() -> None:
    def look(*counters: int) -> str:
        return Probation(RULES, before=NOTHING, first=False).look(ServingCounters(*counters), 0.1).reason

    assert look(3, 2, 0, 0, 3, 3) == "2 of 5 answers on probation failed"
    assert look(20, 0, 2, 0, 20, 20) == "2 answers on probation were not finite"
    assert look(3, 1, 0, 0, 3, 3) == ""
    assert look(1000, 10, 0, 0, 10, 10) == "10 of 20 answers on probation failed", "a batch is one answer"
    assert look(1000, 1, 0, 0, 1000, 1000) == ""


def test_a_release_that_becomes_slow_late_in_a_long_probation_goes_back() -> None:
    probation = Probation(ProbationRules(seconds=1e5, min_predictions=10, max_seconds=2e5), before=BEFORE, first=False)
    requests = total = 0
    verdicts = []
    for latency_ns, looks in ((BEFORE_NS, 5000), (20 * BEFORE_NS, 400)):
        for _ in range(looks):
            requests, total = requests + 1, total + latency_ns
            verdicts.append(probation.look(alone(requests, total), 0.1 * requests))
    assert not any(verdict.done for verdict in verdicts[:5000])
    assert "times what it took before" in verdicts[-1].reason
