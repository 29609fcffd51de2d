"""Classifications: the highest values with their indices and labels, as Triton writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.serving.classification import classify
from edge_agent.serving.errors import BadRequest


def test_tritons_own_example() -> None:
    scores = np.array([1.1, 3.3, 0.5, 2.4], np.float32)
    assert classify("p", scores, 2, ()).tolist() == ["3.300000:1", "2.400000:3"]
    assert classify("p", np.array([1, 5, 10, 4]), 2, ["pear", "pickle", "apple"]).tolist() == [
        "10:2:apple",
        "5:1:pickle",
    ]


def test_a_batch_has_a_row_for_each() -> None:
    scores = np.array([[1, 2, 3], [9, 8, 7]], np.uint8)
    assert classify("p", scores, 1, ()).tolist() == [["3:2"], ["9:0"]]
    assert classify("p", scores, 9, "abc").tolist() == [["3:2:c", "2:1:b", "1:0:a"], ["9:0:a", "8:1:b", "7:2:c"]]
    assert classify("p", scores.reshape(2, 3, 1), 1, ()).shape == (2, 1)
    assert classify("p", np.zeros((0, 3), np.float32), 2, ()).shape == (0, 2)


@given(hnp.arrays(np.float32, (3, 7), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.integers(1, 9))
def test_it_is_the_order_of_a_stable_sort(scores: np.ndarray, count: int) -> None:
    expected = [
        [f"{row[i]:.6f}:{i}" for i in sorted(range(7), key=lambda i: (-row[i], i))][:count] for row in scores.tolist()
    ]
    assert classify("p", scores, count, ()).tolist() == expected


@pytest.mark.parametrize("output", [np.array(["a"], object), np.array([True])])
def test_what_has_no_order(output: np.ndarray) -> None:
    with pytest.raises(BadRequest, match="only numbers"):
        classify("p", output, 1, ())
