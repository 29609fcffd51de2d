"""What is measured on held-out rows, and why it cannot be: a sentence that the run's reason ends with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cloud_hub.training.held_out import compared, probabilities
from tests.doubles.packages import WIDTH, make_package


def test_a_variant_that_answers_what_is_no_number_is_said_to(tmp_path: Path) -> None:
    package = make_package(tmp_path / "made", version="7")
    rows = np.random.default_rng(0).random((70, WIDTH), dtype=np.float32)
    assert all(found.shape == (70, 10) and np.isfinite(found).all() for found in probabilities(package, {"x": rows}))
    rows[69] = np.inf
    with pytest.raises(SystemExit, match=r"the variant cpu-\w+ of .* 7 answers what is no number"):
        probabilities(package, {"x": rows})


def test_a_package_that_does_not_run_here_is_said_to() -> None:
    elsewhere = SimpleNamespace(name="faces", version="3", variants={"cuda-fp16": SimpleNamespace(device="cuda")})
    with pytest.raises(SystemExit, match=r"no variant of faces 3 runs on a processor.*build it"):
        probabilities(elsewhere, {"x": np.zeros((1, 4))})  # type: ignore[arg-type]


def test_the_worst_variant_counts() -> None:
    labels, weights = np.array([0, 1]), np.array([1.0, 3.0])
    good, bad = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.6, 0.4]])
    found = compared([good], [good, bad], labels, weights, ("no", "yes"))
    assert found["candidate_accuracy"] == 0.25 and found["current_accuracy"] == 1.0
    assert found["candidate_error"] > found["current_error"] and found["holdout_labels"] == 2
    assert found["classes"]["yes"] == {"accuracy": 0.0, "rows": 1}
