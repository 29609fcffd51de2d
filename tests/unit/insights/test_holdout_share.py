"""Which labels are held out, and which answers are audited, does not depend on the process."""

from __future__ import annotations

import pytest

from edgeloop.insights import drawn_rows, holdout_share


def test_one_in_four() -> None:
    share = sum(holdout_share(f"prediction-{i}") for i in range(20_000)) / 20_000
    assert abs(share - 0.25) < 0.01


def test_the_answers_are_those_of_every_machine() -> None:
    assert [i for i in range(20) if holdout_share(f"a#{i}")] == [3, 11, 18, 19]


def test_any_text_has_an_answer() -> None:
    assert {holdout_share(text) for text in ("", "\ud800", "é" * 1000, "a", "b", "c", "d", "e")} <= {True, False}


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_each_answer_is_drawn_with_the_set_chance(share: float) -> None:
    drawn = sum(len(drawn_rows(f"prediction-{i}", 1, share)) for i in range(40_000)) / 40_000
    assert abs(drawn - share) < 4 * (share * (1 - share) / 40_000) ** 0.5
    rows = [row for i in range(4000) for row in drawn_rows(f"prediction-{i}", 10, share)]
    assert abs(len(rows) / 40_000 - share) < 4 * (share * (1 - share) / 40_000) ** 0.5
    assert share < 0.05 or set(rows) == set(range(10))


def test_the_draws_are_those_of_every_machine() -> None:
    assert [i for i in range(60) if drawn_rows(f"a#{i}", 1, 0.05)] == [5, 12, 17, 26, 29, 33, 45, 48]
    assert drawn_rows("a#0", 40, 0.1) == (4, 17, 25, 38)


def test_nothing_is_drawn_of_nothing_and_everything_of_all() -> None:
    assert drawn_rows("a", 5, 0.0) == ()
    assert drawn_rows("a", 1, 1.0) == (0,)
    assert drawn_rows("\ud800", 5, 1.0) == (0, 1, 2, 3, 4)


def test_what_is_drawn_is_held_out_as_often_as_the_rest() -> None:
    drawn = [name for i in range(40_000) if drawn_rows(name := f"prediction-{i}", 1, 0.1)]
    assert abs(sum(map(holdout_share, drawn)) / len(drawn) - 0.25) < 0.03
