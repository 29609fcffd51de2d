"""The teacher's answer in a model's outputs: whoever reads the class off them reads the teacher's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_agent.escalating.better import Better, class_of, with_answers

NAMES = ("north", "east", "south", "west")
ROLES = {"p": "probabilities", "l": "logits", "c": "label", "n": "label", "f": "features"}
SCORES = np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0]], np.float32)
OUTPUTS: tuple[tuple[str, Any], ...] = (
    ("p", SCORES),
    ("l", np.log(np.maximum(SCORES, 1e-6))),
    ("c", SCORES.argmax(axis=1)),
    ("n", np.array(["north", "north", "west"], object)),
    ("f", np.ones((3, 2), np.float32)),
)


@pytest.mark.parametrize("confidence", [None, 0.95, 0.3, 0.0])
@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("row", range(3))
def test_every_output_says_the_teachers_class(row: int, label: int, confidence: float | None) -> None:
    before = [array.copy() for _, array in OUTPUTS]
    found = dict(with_answers(OUTPUTS, ROLES, NAMES, {row: Better(label, confidence, "big")}))
    assert found["c"][row] == label and found["n"][row] == NAMES[label]
    for name in ("p", "l"):
        assert found[name][row].argmax() == label and np.isfinite(found[name]).all()
        assert found[name].dtype == np.float32
    assert found["p"][row].sum() == pytest.approx(1.0, abs=1e-6) or SCORES[row, label] == 1
    others = [other for other in range(3) if other != row]
    for (name, array), old in zip(OUTPUTS, before, strict=True):
        np.testing.assert_array_equal(array, old, "what was recorded is not changed")
        np.testing.assert_array_equal(found[name][others], old[others])
    np.testing.assert_array_equal(found["f"], before[-1])


def test_a_confident_teacher_gets_its_confidence_and_the_rest_stays_as_the_edge_had_it() -> None:
    found = dict(with_answers(OUTPUTS, ROLES, NAMES, {0: Better(1, 0.8, "big")}))
    np.testing.assert_allclose(found["p"][0], [0.2 * 0.7 / 0.9, 0.8, 0.2 * 0.1 / 0.9, 0.2 * 0.1 / 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "index"), [(2, 2), ("south", 2), (4, None), (-1, None), ("up", None), ("", None), (1 << 31, None)]
)
def test_a_label_is_a_class_of_the_model_or_none(label: int | str, index: int | None) -> None:
    assert class_of(label, NAMES, 4) == index
