"""The model of the example, a small MLP, and the reference that the loop is held to."""

from __future__ import annotations

import warnings
from pathlib import Path

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from examples.digits.data import Digits, Split

#: 64 → 128 → 64 → 10. The 64 numbers before the last layer are the features whose statistics travel.
LAYERS = (128, 64)


def train(split: Split, seed: int = 0) -> MLPClassifier:
    """Train the whole network on ``split``; takes about a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 80 passes are enough for digits, converged or not
        return MLPClassifier(LAYERS, alpha=1e-3, max_iter=80, random_state=seed).fit(split.x, split.y)


def write_sources(digits: Digits, folder: Path) -> tuple[Path, Path]:
    """Train, and leave what ``model-export build`` takes: the estimator (joblib) and held-out data (npz)."""
    model, data = folder / "digits.joblib", folder / "digits.npz"
    joblib.dump(train(digits.train), model)
    np.savez(data, x=digits.validation.x, label=digits.validation.y)
    return model, data


def full_retrain_accuracy(digits: Digits, labelled: Split, seen: Split) -> float:
    """What retraining everything would have reached, had every raw labelled input been uploaded.

    Args:
        digits: the original splits; its training part is used again.
        labelled: the very inputs whose labels the fleet gave, as the cameras saw them.
        seen: what the fleet is judged on, in the same world.

    Returns:
        Accuracy in 0…1 on ``seen``, the mean of three trainings.
    """
    everything = Split(np.concatenate([digits.train.x, labelled.x]), np.concatenate([digits.train.y, labelled.y]))
    # One training differs from the next by 0.02; the mean of three is a fairer line to be held to.
    return float(np.mean([train(everything, seed).score(seen.x, seen.y) for seed in range(3)]))
