"""What windows take on the wire: few bytes, whatever the traffic."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.insights import HISTOGRAMS, Observer, Profile, Window, coarsen
from edgeloop.insights.aspects.privacy import mark_noised
from edgeloop.insights.calibrating import calibrated

ROWS = 1_000
#: The limits that are promised; head statistics, which come with labels alone, are not in them.
WINDOW_BYTES, DAY_BYTES = 6_144, 150_000


def full(scale: int) -> Window:
    """A window of 10 classes and 128 features in which every aspect but the head has counted ``scale`` · 1,000 rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, ROWS)
    features = np.maximum(rng.normal(size=(ROWS, 128)), 0).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(10), ROWS).astype(np.float32)
    inputs = rng.random((ROWS, 3, 16, 16)).astype(np.float32)
    profile = calibrated(Profile.fit(inputs, probabilities, features), inputs, probabilities, features, labels)
    window = Window.zero(
        profile.schema, "sha256:" + "a" * 64, "cpu-int8", "CPUExecutionProvider", 1.7e9, 1.7e9 + 3600.5
    )
    # Milliseconds that differ by a factor of a hundred, as those of a busy device do.
    queue, run = (rng.lognormal(mean, 0.8, ROWS).astype(np.int64) for mean in (12.5, 14.0))
    observer = Observer(profile)
    drawn = np.arange(ROWS) % 10 == 0
    observer.observe(window, inputs, probabilities, features, queue + run, queue_ns=queue, run_ns=run, drawn=drawn)
    top, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    observer.feedback(window, None, top, labels, labels < 0, confidence=sure, audited=drawn)
    observer.error(window, 3)
    observer.escalation(window, 3)
    observer.health(window, 1e8, 0.5, 40.0)
    mark_noised(window.arrays, ROWS, 7.0)
    for name in window.arrays:
        window.arrays[name] *= scale
    return window


def without_head(window: Window) -> set[str]:
    return {name for name, spec in window.schema.arrays.items() if spec.size and not name.startswith("head")}


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_a_full_window_of_ten_classes_and_128_features(scale: int) -> None:
    window = full(scale)
    counted = {name for name, array in window.arrays.items() if array.any()}
    finest = {name for name in without_head(window) if "@" not in name and name != "texts"}
    assert counted == finest, "every aspect has counted"
    assert len(window.to_bytes()) <= WINDOW_BYTES
    assert Window.from_wire(window.to_wire(), window.schema) == window


def test_a_day_of_a_million_predictions_in_hourly_windows() -> None:
    hour = full(42)
    assert 24 * hour.predictions >= 1_000_000
    assert 24 * len(hour.to_bytes()) <= DAY_BYTES


def test_a_window_that_was_merged_of_fine_and_coarse_ones_stays_small() -> None:
    window = full(100)
    for level in (1, 2, 3):
        window = window.merge(coarsen(full(100), {histogram.name: level for histogram in HISTOGRAMS}))
    assert {f"{name}@{level}" for name in ("inputs", "images", "entropy") for level in (1, 2, 3)} <= set(window.arrays)
    assert len(window.to_bytes()) <= WINDOW_BYTES + 2_048
