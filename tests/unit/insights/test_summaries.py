"""Summaries of rows: the same numbers on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.insights.summaries import SUMMARIES, feature_signs, flatten, input_names, input_signs, summarise


def test_short_rows_are_their_own_summaries() -> None:
    rows = np.arange(12, dtype=np.int32).reshape(4, 3)
    assert np.array_equal(summarise(rows, seed=9), rows.T)
    assert input_names(3) == ("input column 0", "input column 1", "input column 2")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("width", [17, 64, 256, 300, 5000])
def test_long_rows(dtype: type, width: int) -> None:
    rows = (np.random.default_rng(0).random((7, width)) * 5).astype(dtype)
    found = summarise(rows, seed=1)
    exact = rows.astype(np.float64)
    assert found.shape == (SUMMARIES, 7) == (len(input_names(width)), 7)
    assert np.allclose(found[0], exact.mean(axis=1))
    assert np.allclose(found[1], exact.std(axis=1))
    positions, signs = input_signs(width, 1)
    chosen = exact if positions is None else exact[:, positions]
    assert np.allclose(found[2:], signs @ chosen.T)


def test_a_projection_looks_at_few_places_of_a_large_input() -> None:
    positions, signs = input_signs(150_528, 0)
    assert positions is not None
    assert (np.abs(signs).sum(axis=1) * 16 <= 256).all()
    assert positions.max() < 150_528


def test_the_signs_are_those_of_every_machine() -> None:
    # Written down once. If this fails, profiles of released packages no longer fit: find out what changed.
    _, signs = input_signs(20, 7)
    assert "".join("+" if sign > 0 else "-" for sign in signs[0]) == "++--++---++-+++----+"
    positions, _ = input_signs(10_000, 7)
    assert positions is not None and positions[:6].tolist() == [18, 21, 45, 64, 66, 67]
    assert "".join("+" if sign > 0 else "-" for sign in feature_signs(16, 2, 7)[1]) == "+--+-+-++---+---"


def test_other_seeds_give_other_signs() -> None:
    assert not np.array_equal(feature_signs(64, 8, 0), feature_signs(64, 8, 1))
    assert not np.array_equal(feature_signs(64, 1, 0)[0], input_signs(64, 0)[1][0])


def test_rows_of_any_shape_are_flattened() -> None:
    assert flatten(np.zeros((5, 3, 2))).shape == (5, 6)
    assert flatten(np.zeros(5)).shape == (5, 1)
    assert flatten(np.zeros((0, 3, 2))).shape == (0, 6)
