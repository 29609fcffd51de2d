import numpy as np
import pytest

from edgeloop.sampling.drawing import LEAST, Drawing, drawn_again
from edgeloop.sampling.policy import STRATEGIES
from edgeloop.sampling.strategies import REMEMBERED, Memory, Rows, scores


def _rows(*probabilities: list[float], features: np.ndarray | None = None, drifted: bool = False) -> Rows:
    return Rows(np.array(probabilities, np.float32), features, drifted)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_are_finite_and_never_below_zero_whatever_comes(strategy: str) -> None:
    odd = np.array([[np.nan, np.inf, -np.inf], [0, 0, 0]], np.float32)
    for rows in (Rows(odd, odd, True), _rows([1.0]), _rows([0.5, 0.5], features=np.zeros((1, 0)))):
        memory = Memory()
        memory.seen(rows)
        memory.keep(None if rows.features is None else rows.features[0])
        found = scores(strategy, rows, memory)
        assert found.shape == (len(rows),) and np.isfinite(found).all() and (found >= 0).all()


def test_uncertainty_wants_rows_whose_two_likeliest_classes_are_close() -> None:
    found = scores("uncertainty", _rows([0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.5, 0.5, 0.0]), Memory())
    assert found == pytest.approx([0.2, 0.95, 1.0])


def test_diversity_wants_what_is_far_from_all_that_was_kept() -> None:
    memory, features = Memory(), np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    rows = _rows([1.0], [1.0], [1.0], features=features)
    assert scores("diversity", rows, memory).tolist() == [1, 1, 1]
    memory.keep(features[0])
    assert scores("diversity", rows, memory) == pytest.approx([0, 5, 1])
    memory.keep(features[1])
    assert scores("diversity", rows, memory) == pytest.approx([0, 0, 1])
    for number in range(3 * REMEMBERED):
        memory.keep(np.full(2, 100.0 + number))
    assert len(memory.kept) == REMEMBERED and scores("diversity", rows, memory).min() > 100
    memory.keep(np.zeros(5))  # another model's
    assert memory.kept.shape == (1, 5)


def test_balance_wants_rare_classes_in_inverse_proportion() -> None:
    memory = Memory()
    common, rare = [1.0, 0.0], [0.0, 1.0]
    for _ in range(100):
        memory.seen(_rows(*[common] * 9, rare))
    found = scores("balance", _rows(common, rare), memory)
    assert found[1] / found[0] == pytest.approx(9, rel=0.02)


def test_drift_wants_rows_only_while_there_is_one() -> None:
    assert scores("drift", _rows([1.0], drifted=True), Memory()).tolist() == [1]
    assert scores("drift", _rows([1.0]), Memory()).tolist() == [0]


def test_the_chance_that_is_kept_beside_a_row_is_the_one_that_it_had() -> None:
    """Weighted by the inverse of their chances, kept rows have the mean of all rows, whatever is preferred."""
    random = np.random.default_rng(1)
    drawing, total, weighted, kept = Drawing(), 0.0, 0.0, 0
    policy = {"random": 0.2, "uncertainty": 0.4, "balance": 0.2, "diversity": 0.2}
    for _ in range(2000):
        probabilities = random.dirichlet([4.0, 1.0, 0.3], 8).astype(np.float32)
        rows = Rows(probabilities, probabilities @ random.normal(size=(3, 4)))
        values = probabilities.max(axis=1)
        total += float(values.sum())
        for one in drawing.draw(policy, 0.1, rows, random.random(8)).kept:
            weighted += float(values[one.row]) / one.probability
            drawing.memory.keep(rows.features[one.row] if rows.features is not None else None)
            kept += 1
    assert kept == pytest.approx(1600, rel=0.15)
    assert weighted == pytest.approx(total, rel=0.05)


def test_unsure_rows_are_drawn_more_often_by_uncertainty_and_as_often_at_random() -> None:
    random, found = np.random.default_rng(2), {}
    for strategy in ("random", "uncertainty"):
        drawing, unsure = Drawing(), []
        for _ in range(500):
            rows = Rows(np.array([[0.99, 0.01], [0.5, 0.5]], np.float32), None)
            unsure += [one.row for one in drawing.draw({strategy: 1.0}, 0.2, rows, random.random(2)).kept]
        found[strategy] = np.mean(unsure)
    assert found["random"] == pytest.approx(0.5, abs=0.1) and found["uncertainty"] > 0.95


def test_every_row_is_drawn_where_all_may_be_kept_and_none_where_none() -> None:
    rows, numbers = _rows(*[[0.6, 0.4]] * 5), np.linspace(0, 0.999, 5)
    drawn = Drawing().draw({"random": 1.0, "uncertainty": 1.0}, 1.0, rows, numbers).kept
    assert [one.row for one in drawn] == [0, 1, 2, 3, 4] and {one.probability for one in drawn} == {1.0}
    assert {one.strategy for one in drawn} == {"random", "uncertainty"}
    assert Drawing().draw({}, 1.0, rows, numbers).kept == ()
    assert Drawing().draw({"random": 1.0}, 0.0, rows, numbers).kept == []
    assert Drawing().draw({"random": 1.0}, LEAST / 2, rows, np.zeros(5)).kept == []
    assert Drawing().draw({"disagreement": 1.0, "drift": 1.0}, 1.0, rows, np.zeros(5)).kept == []


def test_a_wrong_answer_is_drawn_once_more() -> None:
    assert drawn_again(0.5, 0.4, 0.1, 0.19) == pytest.approx(0.1 + 0.9 * 0.2)
    assert drawn_again(0.5, 0.4, 0.1, 0.2) is None
    assert drawn_again(0.0, 1.0, 0.1, 0.0) is None
