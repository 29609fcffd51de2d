"""Which labels are held out does not depend on the process."""

from __future__ import annotations

from edgeloop.insights import holdout_share


def test_one_in_four() -> None:
    share = sum(holdout_share(f"prediction-{i}") for i in range(20_000)) / 20_000
    assert abs(share - 0.25) < 0.01


def test_the_answers_are_those_of_every_machine() -> None:
    assert [i for i in range(20) if holdout_share(f"a#{i}")] == [3, 11, 18, 19]


def test_any_text_has_an_answer() -> None:
    assert {holdout_share(text) for text in ("", "\ud800", "é" * 1000, "a", "b", "c", "d", "e")} <= {True, False}
