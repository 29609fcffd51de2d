"""Coarser levels give up resolution and no count, whatever is merged with what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.insights import HISTOGRAMS, InsightsError, Window, WindowSchema, coarsen, compare, resolved
from edgeloop.insights.binning import add_neighbours
from edgeloop.insights.levels import known_at
from tests.unit.insights.worlds import observed, profile, random_batch

WINDOW = observed(random_batch(120, seed=3))
NAMES = [histogram.name for histogram in HISTOGRAMS]
levels = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))


def mass(window: Window, name: str) -> int:
    return int(known_at(window, name, 3).sum())


def test_groups_of_neighbours() -> None:
    counts = np.arange(1, 11)
    assert add_neighbours(counts, 1).tolist() == [3, 7, 11, 15, 19]
    assert add_neighbours(counts, 2).tolist() == [10, 26, 19]
    assert add_neighbours(counts, 3).tolist() == [36, 19]
    assert add_neighbours(np.zeros((0, 10), np.int64), 2).shape == (0, 3)
    assert add_neighbours(np.zeros(0, np.int64), 2).shape == (0,)


@pytest.mark.parametrize("bins", [2, 3, 7, 8, 10, 100])
def test_one_level_at_a_time_is_all_at_once(bins: int) -> None:
    counts = np.random.default_rng(bins).integers(0, 9, (3, bins))
    step = add_neighbours(add_neighbours(add_neighbours(counts, 1), 1), 1)
    assert np.array_equal(step, add_neighbours(counts, 3)) and step.sum() == counts.sum()


@given(levels, levels)
@settings(max_examples=50, deadline=None)
def test_counts_are_kept_and_coarsening_twice_is_the_coarser(first: dict[str, int], second: dict[str, int]) -> None:
    coarse = coarsen(coarsen(WINDOW, first), second)
    assert all(mass(coarse, name) == mass(WINDOW, name) for name in NAMES)
    assert coarse == coarsen(WINDOW, {name: max(first.get(name, 0), second.get(name, 0)) for name in NAMES})
    assert Window.from_wire(coarse.to_wire(), coarse.schema) == coarse


@given(levels)
@settings(max_examples=50, deadline=None)
def test_coarsening_commutes_with_merging(chosen: dict[str, int]) -> None:
    one, other = observed(random_batch(50, seed=4)), observed(random_batch(70, seed=5))
    assert coarsen(one.merge(other), chosen) == coarsen(one, chosen).merge(coarsen(other, chosen))


def test_the_window_itself_stays_as_it_was() -> None:
    before = WINDOW.copy()
    coarsen(WINDOW, dict.fromkeys(NAMES, 3))
    assert before == WINDOW


def test_a_coarser_window_is_smaller_on_the_wire() -> None:
    sizes = [len(coarsen(WINDOW, dict.fromkeys(NAMES, level)).to_bytes()) for level in range(4)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


def test_the_finest_level_at_which_nearly_all_are_known() -> None:
    fine, coarse = observed(random_batch(95, seed=4)), coarsen(observed(random_batch(5, seed=5)), {"inputs": 2})
    counts, level = resolved(fine.merge(coarse), "inputs")
    assert level == 0 and np.array_equal(counts, fine.arrays["inputs"])
    more = fine.merge(coarse).merge(coarsen(observed(random_batch(20, seed=6)), {"inputs": 1}))
    counts, level = resolved(more, "inputs")
    assert level == 1 and counts.shape == (8, 5) and counts.sum() == 8 * 115
    assert known_at(more, "inputs", 2).sum() == 8 * 120
    assert [resolved(coarsen(WINDOW, {"confidence": chosen}), "confidence")[1] for chosen in range(4)] == [0, 1, 2, 3]


def test_nothing_counted_is_known_in_full() -> None:
    counts, level = resolved(Window.zero(profile().schema), "projections")
    assert level == 0 and counts.shape == (8, 10) and not counts.any()
    counts, level = resolved(WINDOW, "images")
    assert level == 0 and counts.shape == (0, 10)


@pytest.mark.parametrize(("mine", "theirs"), list(itertools.product(range(4), range(4))))
def test_windows_are_compared_on_the_coarser_level_of_both(mine: int, theirs: int) -> None:
    schema = WindowSchema(3, 0, 1, 0)
    window, reference = Window.zero(schema), Window.zero(schema)
    window.arrays["inputs"][:], reference.arrays["inputs"][:] = [[0] * 5 + [40] * 5], [[30] * 10]
    report = compare(coarsen(window, {"inputs": mine}), coarsen(reference, {"inputs": theirs}), schema)
    (found,) = report.aspects
    level = max(mine, theirs)
    moved = [add_neighbours(counts, level)[0] for counts in (window.arrays["inputs"], reference.arrays["inputs"])]
    now, normal = (counts / counts.sum() for counts in moved)
    assert found.name == "inputs[0]" and found.effect == pytest.approx(np.abs(now - normal).sum() / 2)


def test_names_and_levels_that_do_not_exist() -> None:
    with pytest.raises(InsightsError, match="no histogram"):
        coarsen(WINDOW, {"latency": 1})
    for wrong in (-1, 4, 1.0, True):
        with pytest.raises(InsightsError, match="from 0 to 3"):
            coarsen(WINDOW, {"inputs": wrong})  # type: ignore[dict-item]
