"""How intervals become windows to compare, and how an alarm is summed up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.alarms import DEVICES, FLEET, SEGMENTS, Evidence, summarise
from cloud_hub.drift_rules import cut


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], []),
        ([(0.0, 99)], []),
        ([(0.0, 100)], [(0, 10)]),
        ([(0.0, 60), (10.0, 60)], [(0, 20)]),
        ([(0.0, 100), (10.0, 100)], [(0, 10), (10, 20)]),
        ([(0.0, 100), (50.0, 100)], [(0, 10), (10, 60)]),  # without gaps: nothing that comes late falls between
        ([(0.0, 0), (10.0, 100), (20.0, 99)], [(0, 20)]),  # the rest waits
    ],
)
def test_cut_by_predictions(counts: list[tuple[float, int]], expected: list[tuple[float, float]]) -> None:
    found = cut(counts, length_s=10.0, min_predictions=100, min_s=1.0)
    assert [(stretch.since, stretch.until) for stretch in found] == expected


@pytest.mark.parametrize(("min_s", "intervals"), [(0.05, 1), (0.1, 1), (0.11, 1), (0.2, 2), (0.3, 3), (1.0, 10)])
def test_cut_by_time_does_not_stumble_over_the_last_bits(min_s: float, intervals: int) -> None:
    counts = [(round(7.0 + 0.1 * i, 10), 1000) for i in range(20)]
    found = cut(counts, length_s=0.1, min_predictions=1, min_s=min_s)
    assert found[0].until - found[0].since == pytest.approx(0.1 * intervals)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 500), st.floats(0.1, 100))
def test_every_stretch_is_large_enough_and_none_is_lost(counts: list[int], least: int, min_s: float) -> None:
    rows = [(10.0 * i, count) for i, count in enumerate(counts)]
    found = cut(rows, length_s=10.0, min_predictions=least, min_s=min_s)
    for before, after in itertools.pairwise(found):
        assert before.until == after.since
    covered = 0
    for stretch in found:
        held = sum(count for start, count in rows if stretch.since <= start < stretch.until)
        assert held >= least and stretch.until - stretch.since > min_s - 5.0
        covered += held
    rest = [row for row in rows if not found or row[0] >= found[-1].until]
    assert covered + sum(count for _, count in rest) == sum(counts)
    # What is left can be cut later, as if it had never been looked at before.
    assert not cut(rest, length_s=10.0, min_predictions=least, min_s=min_s)


def test_a_summary_tells_what_moved_most() -> None:
    aspects = [{"moved": f"projection {i}: moved", "effect": i / 10, "against": "profile"} for i in range(5)]
    assert summarise(Evidence(aspects)) == (
        "projection 4: moved (against profile); projection 3: moved (against profile); "
        "projection 2: moved (against profile); and 2 more"
    )
    assert summarise(Evidence(aspects[:1])) == "projection 0: moved (against profile)"


def test_a_summary_names_who_carries_it() -> None:
    aspects = [{"moved": "mean: moved", "effect": 0.5, "against": "profile"}]
    names = tuple(f"cam-{i}" for i in range(7))
    told = summarise(Evidence(aspects, DEVICES, devices=names))
    assert told == "devices cam-0, cam-1, cam-2, cam-3, cam-4 and 2 more: mean: moved (against profile)"
    assert summarise(Evidence(aspects, SEGMENTS, segments=("night",))).startswith("segments night: ")
    assert summarise(Evidence(aspects, FLEET, devices=names)).startswith("mean: moved")
