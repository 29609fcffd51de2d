"""The means of features: no more false alarms than asked for whatever the features' law, and a moved mean is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeloop.insights.mean_shift import mean_deviates, moved_mass
from edgeloop.insights.null import normal_tail

Array = npt.NDArray[Any]
Law = Callable[[np.random.Generator, tuple[int, int]], Array]
LAWS: dict[str, Law] = {
    "normal": lambda rng, size: rng.normal(3, 1, size),
    "negative": lambda rng, size: -rng.exponential(1, size),
    "exponential": lambda rng, size: rng.exponential(1, size),
    "rectified": lambda rng, size: np.maximum(rng.normal(0, 1, size), 0),
    "sparse": lambda rng, size: (rng.random(size) < 0.1) * rng.exponential(1, size),
    "log-normal": lambda rng, size: rng.lognormal(0, 1, size),
    "about zero": lambda rng, size: rng.normal(0, 1, size),
}


def deviates(window: Array, reference: Array) -> tuple[Array, Array]:
    """Of one window [n, F] against a reference [m, F]."""
    moved, shifts = mean_deviates(
        window.sum(0)[None],
        (window**2).sum(0)[None],
        np.array([len(window)]),
        reference.sum(0),
        (reference**2).sum(0),
        len(reference),
    )
    return moved[0], shifts[0]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("rows", "reference_rows"), [(60, 150), (300, 150)])
def test_false_alarms_are_no_more_than_asked_for(law: str, rows: int, reference_rows: int) -> None:
    """6,000 independent features, both sides of each: 300 and 6 alarms are allowed in the mean."""
    rng = np.random.default_rng(rows)
    features = 6_000
    found, _ = deviates(LAWS[law](rng, (rows, features)), LAWS[law](rng, (reference_rows, features)))
    p = 2 * normal_tail(found)
    # 360 and 16 are beyond the 99.9 % bounds of these rates.
    assert (p < 0.05).sum() <= 360 and (p < 0.001).sum() <= 16


@pytest.mark.parametrize("law", ["normal", "exponential", "rectified", "log-normal", "negative"])
@pytest.mark.parametrize("factor", [1.6, 0.6])
def test_a_moved_mean_is_seen(law: str, factor: float) -> None:
    rng = np.random.default_rng(1)
    found, shifts = deviates(factor * LAWS[law](rng, (400, 200)), LAWS[law](rng, (400, 200)))
    assert (normal_tail(found) < 0.001).mean() > 0.8
    away = shifts > 0 if law != "negative" else shifts < 0
    assert (away if factor > 1 else ~away).mean() > 0.95


def test_what_nobody_can_know() -> None:
    """A constant, a feature that is nearly always zero, one that woke up, one that changed its constant."""
    window, reference = np.zeros((100, 4)), np.zeros((100, 4))
    window[:, 0] = reference[:, 0] = 5.0
    window[:3, 1] = 1.0
    window[:, 2] = np.arange(100) % 2
    window[:, 3], reference[:, 3] = 2.0, 1.0
    found, shifts = deviates(window, reference)
    assert found[0] == 0 and shifts[0] == 0, "nothing moved"
    assert found[1] == 0, "three rows are no evidence"
    assert found[2] > 4 and np.isinf(shifts[2]), "a feature that was dead"
    assert found[3] > 4
    assert np.isfinite(found).all()


def test_a_shift_in_words_of_mass() -> None:
    assert moved_mass(np.array([0.0, 0.378, -2.0, np.inf])) == pytest.approx([0.0, 0.15, 0.6827, 1.0], abs=1e-3)
