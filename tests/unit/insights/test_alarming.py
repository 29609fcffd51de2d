"""False alarms over time: as many a year as were set, however the comparisons hang together."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.insights import Window, WindowSchema
from edgeloop.insights.alarming import QUIET_WINDOWS, YEAR_S, Streak, alpha_of
from edgeloop.insights.drift import Comparison, class_groups, counts_of


@pytest.mark.parametrize(
    ("seconds", "per_year", "consecutive", "expected"),
    [
        (60.0, None, 2, 0.01),
        (60.0, 12.0, 2, 2 * 12 * 60 / YEAR_S),
        (3600.0, 12.0, 1, 12 * 3600 / YEAR_S),
        (30 * 86_400.0, 12.0, 2, 0.01),  # offline for a month: no comparison errs more often than this
    ],
)
def test_the_budget_of_one_comparison(
    seconds: float, per_year: float | None, consecutive: int, expected: float
) -> None:
    found = alpha_of(seconds, alarms_per_year=per_year, consecutive=consecutive, at_most=0.01)
    assert found == pytest.approx(expected)


def test_a_year_of_comparisons_spends_what_was_set() -> None:
    hours = [alpha_of(3600.0, alarms_per_year=12.0, consecutive=2, at_most=0.01)] * round(YEAR_S / 3600)
    assert sum(hours) / 2 == pytest.approx(12.0)


def test_alarms_come_no_more_often_than_set_and_errors_as_often_as_said() -> None:
    """1,600 clean windows of 40 releases, each with its own small reference, which all of its windows share."""
    schema = WindowSchema(10, 0, 3, 0)
    rng = np.random.default_rng(5)
    alpha, consecutive, rows, windows, releases = 0.05, 2, 300, 40, 40
    errors = alarms = 0
    for _ in range(releases):
        normal = Window.zero(schema)
        seen = {}
        for name, count in (("classes", 1), ("confidence", 1), ("inputs", 3)):
            shares = rng.dirichlet(np.full(10, 20.5), count)
            shape = (windows, 10) if name == "classes" else (windows, count, 10)
            # Equal-mass bins are equal in the reference; the truth is what is only nearly so.
            normal.arrays[name][:] = 20
            seen[name] = rng.multinomial(rows, shares, (windows, count)).reshape(shape)
        reference = counts_of(normal, class_groups(normal.arrays["classes"]))
        streak, alarmed = Streak(), False
        for at, drifted in enumerate(Comparison(seen, reference, alpha=alpha, min_effect=0.0).drifted):
            errors += bool(drifted)
            streak = streak.next(at, at + 1, bool(drifted))
            alarms += streak.raises(consecutive) and not alarmed
            alarmed = (alarmed or streak.raises(consecutive)) and not streak.clears()
    # 80 errors are expected at most, 40 alarms allowed; that windows share a reference makes errors come together, so
    # that their number scatters (99.9 % of such worlds: below 155).
    assert 25 <= errors <= 155
    assert alarms <= releases * windows * alpha / consecutive


def test_an_alarm_needs_a_row_and_ends_with_a_row() -> None:
    def run(saw: str) -> Streak:
        streak = Streak()
        for i, letter in enumerate(saw):
            streak = streak.next(10.0 * i, 10.0 * i + 10, letter == "d")
        return streak

    assert not run("d.d.d.d").raises(2)
    assert run("d.dd").raises(2) and not run("d.dd").raises(3)
    assert run("d").raises(1)
    assert not run("dd" + "." * (QUIET_WINDOWS - 1)).clears()
    assert run("dd" + "." * QUIET_WINDOWS).clears()
    assert run("..dd") == Streak(2, 20.0, 30.0, 0) and run("d.d") == Streak(1, 20.0, 30.0, 0)
    assert run("....") == Streak(0, None, None, 4) and run("dd.") == Streak(0, None, None, 1)
