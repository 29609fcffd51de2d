"""What the teacher's answers teach: where a release errs, though its own signals do not show it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.cascade.hardness import WIDTH, told
from edgeloop.cascade.learning import EVERY, FEWEST, KEPT, OPINION, Learner

NAMES = ("confidence", OPINION)
CENTRES = 3 * np.random.default_rng(0).normal(size=(3, 5))


def _world(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three classes, of which the third is always taken for the second; the confidence says nothing of it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    signals = np.zeros((rows, WIDTH + 5))
    signals[:, 0] = rng.uniform(0.05, 0.15, rows)
    signals[:, 4] = np.minimum(truth, 1)
    signals[:, WIDTH:] = CENTRES[truth] + rng.normal(size=(rows, 5))
    return signals, truth


def _taught(rows: int = 120) -> Learner:
    learner = Learner(NAMES, 3)
    for signals, label in zip(*_world(rows), strict=True):
        learner.learn(signals, int(label), 2.0)
    learner.fit()
    return learner


def test_before_the_first_answers_hardness_is_what_the_signals_tell() -> None:
    signals, _ = _world(50)
    assert np.array_equal(_taught(FEWEST - 1).hardness(signals), told(signals, NAMES))


def test_it_learns_where_the_release_errs() -> None:
    signals, truth = _world(300, seed=2)
    hardness = _taught().hardness(signals)
    assert hardness[truth == 2].mean() > 0.8
    assert hardness[truth < 2].mean() < 0.1


def test_a_fit_is_due_after_every_few_answers_and_learning_is_none() -> None:
    learner, (asked, _), due = Learner(NAMES, 3), _world(9, seed=5), []
    known = learner.hardness(asked)
    for number, (signals, label) in enumerate(zip(*_world(FEWEST + EVERY), strict=True), 1):
        learner.learn(signals, int(label), 2.0)
        assert np.array_equal(learner.hardness(asked), known), "who brings an answer does not wait for a fit"
        if learner.due:
            learner.fit()
            assert not learner.due and not np.array_equal(learner.hardness(asked), known)
            due.append(number)
            known = learner.hardness(asked)
    assert due == [FEWEST, FEWEST + EVERY]


def test_without_the_opinion_nothing_is_learned() -> None:
    learner = Learner(("confidence",), 3)
    for signals, label in zip(*_world(50), strict=True):
        learner.learn(signals, int(label), 1.0)
    assert learner.answers == 0


def test_rows_without_a_place_are_judged_by_their_signals() -> None:
    learner = Learner(NAMES, 2)
    rng = np.random.default_rng(3)
    signals = np.zeros((200, WIDTH))
    signals[:, 0] = rng.uniform(0, 1, 200)
    for row in signals:
        learner.learn(row, int(row[0] > 0.8), 1.0)
    learner.fit()
    hardness = learner.hardness(signals)
    assert hardness[signals[:, 0] > 0.95].mean() > hardness[signals[:, 0] < 0.5].mean() + 0.4


def test_it_keeps_a_bounded_number_of_answers_and_takes_no_foreign_class() -> None:
    learner = _taught(KEPT + 30)
    assert learner.answers == KEPT
    learner.learn(_world(1)[0][0], 3, 1.0)
    assert learner.answers == KEPT


def test_a_model_with_other_features_starts_afresh() -> None:
    learner = _taught(60)
    learner.learn(np.zeros(WIDTH + 2), 1, 1.0)
    assert learner.answers == 1
    assert np.isfinite(learner.hardness(np.zeros((1, WIDTH + 2)))).all()


def test_what_was_learned_outlives_a_restart() -> None:
    learner, (signals, _) = _taught(), _world(40, seed=4)
    again = Learner(NAMES, 3, learner.plain())
    assert again.due, "what it has kept is fitted when there is time"
    again.fit()
    assert np.allclose(again.hardness(signals), learner.hardness(signals), atol=1e-3)


@pytest.mark.parametrize(
    "damage",
    [
        {"width": 3},
        {"width": "x"},
        {"rows": b"abc"},
        {"labels": np.full(120, 7, "<i4").tobytes()},
        {"weights": np.full(120, np.nan, "<f4").tobytes()},
        {"rows": np.full((120, WIDTH + 5), np.inf, "<f4").tobytes()},
        {"rows": np.full((120, WIDTH + 5), 9, "<f4").tobytes()},
        {"labels": None},
    ],
)
def test_damaged_answers_are_left_alone(damage: dict[str, Any]) -> None:
    assert Learner(NAMES, 3, _taught().plain() | damage).answers == 0
