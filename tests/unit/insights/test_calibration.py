"""Calibration: a rising map that means what it says, the better of two ways, and files that nobody can slip in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeloop.insights import InsightsError, Profile, WindowSchema
from edgeloop.insights.calibrating import FEWEST_ROWS, better, calibrated, fit
from edgeloop.insights.calibration import ISOTONIC, SCALING, Calibration
from tests.unit.insights.worlds import random_batch

Array = npt.NDArray[Any]


def answers(rows: int, chance: Any, seed: int = 0) -> tuple[Array, Array, Array]:
    """Confidence, predicted and true class of answers that are right with ``chance(confidence)``."""
    rng = np.random.default_rng(seed)
    confidence = 1 - 0.6 * rng.random(rows) ** 2
    right = rng.random(rows) < chance(confidence)
    predicted = rng.integers(0, 4, rows)
    return confidence, predicted, np.where(right, predicted, (predicted + 1) % 4)


def overconfident(confidence: Array) -> Array:
    return np.asarray(confidence - 0.15)


def stepped(confidence: Array) -> Array:
    return np.where(confidence > 0.9, 0.98, 0.3)


@pytest.mark.parametrize("rows", [FEWEST_ROWS, 200, 2000])
@pytest.mark.parametrize("chance", [overconfident, stepped, np.ones_like, np.zeros_like])
def test_the_map_rises_within_bounds_and_means_the_share_of_right_answers(rows: int, chance: Any) -> None:
    confidence, predicted, truth = answers(rows, chance)
    found = fit(confidence, predicted, truth, classes=4)
    grid = found.chance(np.linspace(0, 1, 500))
    assert (np.diff(grid) >= 0).all() and grid[0] > 0 and grid[-1] < 1
    assert (found.rows, found.right) == (rows, int((predicted == truth).sum()))
    assert found.chance(confidence).mean() == pytest.approx(found.accuracy, abs=0.5 / np.sqrt(rows))


def test_a_straight_line_is_enough_for_one_world_and_not_for_another() -> None:
    assert better(*_right(answers(1000, lambda c: c))) == SCALING
    assert better(*_right(answers(1000, stepped))) == ISOTONIC


def _right(found: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    confidence, predicted, truth = found
    return confidence, predicted == truth


def test_rows_near_their_class_are_familiar_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 600)
    places = rng.normal(size=(8, 600)) + 3 * np.eye(8)[truth].T
    found = fit(rng.random(600), truth, truth, classes=3, places=places).familiar
    assert found is not None
    top = rng.integers(0, 3, 4000)
    fresh = rng.normal(size=(8, 4000)) + 3 * np.eye(8)[top].T
    assert 0.03 <= (found.distance(fresh, top) > 1).mean() <= 0.08
    assert (found.distance(fresh + 4, top) > 1).mean() > 0.9
    assert (found.distance(fresh, (top + 1) % 3) > 1).mean() > 0.5


def test_classes_with_few_rows_share_one_centre() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 100, 200)
    found = fit(rng.random(200), truth, truth, classes=100, places=rng.normal(size=(8, 200))).familiar
    assert found is not None and found.centres.shape == (1, 8)


def test_rows_that_are_too_few_or_do_not_fit_are_refused() -> None:
    confidence, predicted, truth = answers(FEWEST_ROWS - 1, overconfident)
    with pytest.raises(InsightsError, match="too few"):
        fit(confidence, predicted, truth, classes=4)
    with pytest.raises(InsightsError, match="one length"):
        fit(confidence[1:], predicted, truth, classes=4)
    batch = random_batch(100)
    with pytest.raises(InsightsError, match="true classes"):
        calibrated(Profile.fit(batch.x, batch.p, batch.f), batch.x, batch.p, batch.f, batch.y[1:])


@pytest.mark.parametrize("features", [True, False])
def test_it_is_kept_with_the_reference_and_not_with_the_bins(tmp_path: Path, features: bool) -> None:
    batch = random_batch(300)
    seen = batch.f if features else None
    profile = calibrated(Profile.fit(batch.x, batch.p, seen), batch.x, batch.p, seen, batch.y)
    bins, reference = tmp_path / "bins", tmp_path / "reference"
    bins.mkdir(), reference.mkdir()
    profile.save(bins, reference)
    before = (bins / "bins.safetensors").read_bytes()
    read = Profile.load(bins, reference).calibration
    assert read is not None and profile.calibration is not None
    assert (read.rows, read.right, read.method) == (300, profile.calibration.right, profile.calibration.method)
    for name, tensor in profile.calibration.to_tensors().items():
        assert np.array_equal(read.to_tensors()[name], tensor)
    profile.with_calibration(None).save(bins, reference)
    assert (bins / "bins.safetensors").read_bytes() == before
    assert Profile.load(bins, reference).calibration is None


def _map(chances: Array) -> Array:
    return np.stack([np.linspace(0, 1, len(chances)), chances]).astype(np.float32)


def _spoiled() -> dict[str, tuple[str, Any]]:
    return {
        "more right than rows": ("facts", np.array([10, 11, 0])),
        "no rows": ("facts", np.array([0, 0, 0])),
        "unknown method": ("facts", np.array([10, 5, 2])),
        "facts of another form": ("facts", np.array([10.0, 5.0, 0.0])),
        "falling": ("map", _map(np.linspace(0.9, 0.1, 32))),
        "beyond 1": ("map", _map(np.linspace(0.5, 1.5, 32))),
        "not finite": ("map", _map(np.full(32, np.nan))),
        "one row": ("map", np.zeros((1, 5), np.float32)),
        "no points": ("map", np.zeros((2, 0), np.float32)),
        "no matrix": ("map", np.zeros(5, np.float32)),
        "float64": ("map", np.linspace(0.1, 0.9, 10).reshape(2, 5)),
        "centres of other classes": ("familiar", np.zeros((2 + 8, 8), np.float32)),
        "another width": ("familiar", np.zeros((4 + 7, 7), np.float32)),
        "fewer rows than columns": ("familiar", np.zeros((3, 8), np.float32)),
    }


@pytest.mark.parametrize("what", _spoiled())
def test_a_spoiled_calibration_is_refused(what: str) -> None:
    rng = np.random.default_rng(3)
    confidence, predicted, truth = answers(400, overconfident)
    good = fit(confidence, predicted, truth, classes=4, places=rng.normal(size=(8, 400)))
    tensors = good.to_tensors()
    sizes = WindowSchema(classes=4, features=6, inputs=0, projections=8)
    assert Calibration.from_tensors(tensors, sizes) is not None
    name, value = _spoiled()[what]
    with pytest.raises(InsightsError, match="build the package again"):
        Calibration.from_tensors(tensors | {f"calibration.{name}": value}, sizes)
