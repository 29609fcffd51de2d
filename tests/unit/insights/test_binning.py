"""Equal-mass bins: equal where the data allow it, sound where values tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeloop.insights.binning import count_bins, equal_mass_edges

finite = st.floats(-1e6, 1e6, width=32)


def test_continuous_values_fill_the_bins_equally() -> None:
    values = np.random.default_rng(0).normal(size=(3, 1000))
    assert (np.abs(count_bins(values, equal_mass_edges(values, 10)) - 100) <= 1).all()


@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 60)), elements=finite), st.integers(2, 20))
@settings(max_examples=100, deadline=None)
def test_counting_is_searchsorted_from_the_right(values: np.ndarray, bins: int) -> None:
    edges = equal_mass_edges(values, bins)
    assert (np.diff(edges, axis=1) >= 0).all()
    expected = [
        np.bincount(np.searchsorted(e, v, side="right"), minlength=bins) for e, v in zip(edges, values, strict=True)
    ]
    assert np.array_equal(count_bins(values, edges), expected)


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    assert count_bins(np.array([[1.0]]), np.array([[0.0, 1.0, 2.0]])).tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("constant", [0.0, 1.0, -3.5, 1e9])
def test_a_constant_column_shows_a_move_in_either_direction(constant: float) -> None:
    edges = equal_mass_edges(np.full((1, 50), constant), 10)
    moved = abs(constant) * 1e-3 + 1e-3
    below, at, above = (count_bins(np.array([[constant + by]]), edges)[0] for by in (-moved, 0.0, moved))
    assert np.count_nonzero(below + at + above) == 3


def test_rounding_on_another_machine_does_not_leave_an_atom() -> None:
    values = np.concatenate([np.full(60, 0.1), np.random.default_rng(0).random(40)])[None]
    edges = equal_mass_edges(values, 10)
    near = np.array([[np.nextafter(np.float32(0.1), 0), 0.1, np.nextafter(np.float32(0.1), 1)]], dtype=np.float64)
    assert count_bins(near, edges).max() == 3


def test_few_distinct_values() -> None:
    values = np.repeat([0.0, 1.0], [70, 30])[None]
    edges = equal_mass_edges(values, 10)
    assert sorted(count_bins(values, edges)[0][count_bins(values, edges)[0] > 0]) == [30, 70]


def test_no_rows() -> None:
    assert count_bins(np.zeros((2, 0)), np.zeros((2, 9))).tolist() == [[0] * 10] * 2
