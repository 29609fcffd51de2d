"""The draw: its chances, and that it is drawn as often as they say."""

from __future__ import annotations

import numpy as np

from edgeloop.cascade.drawing import chances, places
from edgeloop.insights import holdout_share


def test_a_row_is_thrown_the_same_everywhere_and_evenly() -> None:
    assert places("a-1", 3).tolist() == places("a-1", 3).tolist()
    assert np.round(places("a-1", 2), 6).tolist() == [0.477379, 0.095413]
    thrown = np.sort([places(f"p-{number}", 1)[0] for number in range(4000)])
    assert np.abs(thrown - np.linspace(0, 1, 4000)).max() < 0.03  # Kolmogorov's distance at one in a thousand: 0.031


def test_rows_of_a_batch_are_thrown_evenly() -> None:
    assert abs(np.mean(places("batch", 10_000) < 0.05) - 0.05) < 0.001


def test_what_is_drawn_is_held_out_as_often_as_the_rest() -> None:
    drawn = [name for name in map(str, range(8000)) if places(name, 1)[0] < 0.2]
    assert abs(np.mean([holdout_share(name) for name in drawn]) - 0.25) < 0.04


def test_a_chance_rises_with_hardness_from_the_floor_to_one() -> None:
    found = chances(np.array([-30.0, -1.0, 0.0, 1.0, 30.0]), threshold=0.0, softness=0.1, floor=0.02)
    assert np.allclose(found[[0, 2, 4]], [0.02, 0.51, 1.0])
    assert (np.diff(found) > 0).all()
