"""Which of two answers a client gets."""

from __future__ import annotations

import pytest

from edgeloop.cascade.combining import better, standing


@pytest.mark.parametrize(
    ("hardness", "confidence", "answer"),
    [
        (0.5, 0.9, "teacher"),
        (0.01, 0.99, "teacher"),
        (0.1, 0.6, "device"),  # 9 to 1 against 3 times 3 to 2
        (0.2, 0.6, "teacher"),  # 4 to 1 is not three times as certain
        (0.0, 0.0, "device"),
        (0.001, None, "teacher"),
        (1.0, 0.01, "teacher"),
    ],
)
def test_the_device_stands_against_the_teacher_only_where_it_is_far_surer(
    hardness: float, confidence: float | None, answer: str
) -> None:
    assert better(3, hardness, 5, confidence) == (5 if answer == "teacher" else 3)


def test_where_they_agree_there_is_nothing_to_choose() -> None:
    assert better(3, 0.2, 3, 0.1) == 3


@pytest.mark.parametrize(
    ("hardness", "confidence", "chance"), [(0.1, 0.6, 6 / 7), (0.5, 0.5, 0.5), (0.0, 0.9, 1.0), (0.0, 1.0, 0.5)]
)
def test_where_they_differ_the_chances_of_both_make_one(hardness: float, confidence: float, chance: float) -> None:
    assert standing(hardness, confidence) == pytest.approx(chance)


def test_an_answer_that_stands_is_right_three_times_of_four() -> None:
    assert standing(0.1, 0.75) == pytest.approx(0.75), "at the edge of the rule"
