"""A deliberately small model for devices, and a large teacher that knows more of the world."""

from __future__ import annotations

import warnings
from pathlib import Path

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from examples.digits.data import Digits, Slip, Split

#: 64 → 64 → 10, stopped early: 4,810 numbers. The teacher, 64 → 256 → 128 → 10, has 50,826.
SMALL, LARGE = (64,), (256, 128)
#: The camera turns by 25° and is dimmed to 60 %. Its noise is half that of the other demo's: there the teacher's own
#: answers fall to 0.88.
SLIPPED = Slip("slipped", degrees=25.0, light=0.6, noise=0.05)
#: Worlds that the teacher was shown, and the edge was not: none of them is the drift itself.
WORLDS_SHOWN = 16


def train_edge(split: Split, seed: int) -> MLPClassifier:
    """The small model; a fraction of a second."""
    return _fitted(MLPClassifier(SMALL, alpha=1e-3, max_iter=40, random_state=seed), split)


def train_teacher(split: Split, seed: int) -> MLPClassifier:
    """The large model, on many views of each digit; some seconds."""
    settings = {"max_iter": 15, "learning_rate_init": 3e-3, "batch_size": 200}
    return _fitted(MLPClassifier(LARGE, alpha=1e-3, random_state=0, **settings), views(split, seed))


def views(split: Split, seed: int) -> Split:
    """The split as many cameras would see it: turned by up to 32° either way, dimmed, in glare, with noise."""
    rng, seen = np.random.default_rng(seed), [split]
    for number in range(WORLDS_SHOWN):
        slip = Slip(
            "shown",
            degrees=float(-32 + 64 * (number + rng.random()) / WORLDS_SHOWN),
            light=float(rng.uniform(0.5, 1.0)),
            offset=float(max(0.0, rng.uniform(-0.4, 0.4))),
            noise=float(rng.uniform(0.0, 0.1)),
        )
        seen.append(slip(split, seed=1000 * seed + number))
    return Split(np.concatenate([one.x for one in seen]), np.concatenate([one.y for one in seen]))


def write_source(model: MLPClassifier, name: str, digits: Digits, folder: Path) -> tuple[Path, Path]:
    """Leave what ``model-export build`` takes: the estimator (joblib) and held-out data (npz)."""
    estimator, data = folder / f"{name}.joblib", folder / f"{name}.npz"
    joblib.dump(model, estimator)
    np.savez(data, x=digits.validation.x, label=digits.validation.y)
    return estimator, data


def _fitted(model: MLPClassifier, split: Split) -> MLPClassifier:
    # More threads than one wait for one another here, and for whatever else runs on the machine.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(split.x, split.y)
