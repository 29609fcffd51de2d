"""scikit-learn's digits, a small network trained on them, and the package that the real `model-export` makes of it.

Training takes a fraction of a second and is the same at every run; it happens once a process.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from model_export.building.build_report import BuildReport

SEED = 7
TRAIN, VALIDATION = 800, 400


@dataclass(frozen=True)
class Split:
    """Images float32 [N, 64] in 0…1 with their labels int64 [N]."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Three disjoint splits: 800 to train, 400 that `model-export` gets as data, 597 held out."""

    train: Split
    validation: Split
    test: Split


@functools.cache
def splits() -> Digits:
    """The splits, the same at every call."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(y))
    x, y = (x[order] / 16.0).astype(np.float32), y[order].astype(np.int64)
    a, b = TRAIN, TRAIN + VALIDATION
    return Digits(Split(x[:a], y[:a]), Split(x[a:b], y[a:b]), Split(x[b:], y[b:]))


@functools.cache
def classifier() -> Any:
    """A fitted MLPClassifier 64 → 128 → 64 → 10."""
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    train = splits().train
    # One thread: matrices this small cost more to share out than to multiply, and sums keep their order.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return MLPClassifier((128, 64), max_iter=40, alpha=1e-3, random_state=0).fit(train.x, train.y)


def write_data(folder: Path) -> Path:
    """The validation split as an ``.npz`` file."""
    path = folder / "digits.npz"
    np.savez(path, x=splits().validation.x, label=splits().validation.y)
    return path


def build(destination: Path, **options: Any) -> BuildReport:
    """Build the digits package at ``destination`` (which must not exist) by the real `model_export.build`.

    Args:
        destination: the package's folder; the data file is written beside it.
        options: of `model_export.build`; by default name ``digits``, version ``1.0.0``, both precisions, no latency in
            the package.
    """
    import model_export

    destination.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"name": "digits", "version": "1.0.0", "reproducible": True} | options
    return model_export.build(classifier(), destination, write_data(destination.parent), **settings)
