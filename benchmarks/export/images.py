"""scikit-learn's digits as pictures of 40 × 40, a little turned, moved and noisy, so that few are easy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.datasets import load_digits

SIDE = 40
#: Versions of each digit; and how many of ten digits train and build the package; the others test it.
VERSIONS, TRAIN, BUILD = 2, 6, 2

Array = npt.NDArray[Any]


def parts(seed: int = 0) -> dict[str, dict[str, Array]]:
    """``image`` float32 [N, 1, 40, 40] in 0…1 and ``label`` int64 [N] of each part."""
    random, digits = np.random.default_rng(seed), load_digits()
    turn = random.permutation(len(digits.images)) % 10
    where = {"train": turn < TRAIN, "build": (turn >= TRAIN) & (turn < TRAIN + BUILD), "test": turn >= TRAIN + BUILD}
    result = {}
    for part, chosen in where.items():
        images, labels = digits.images[chosen] / 16.0, digits.target[chosen]
        rows = [_seen(image, random) for image in images for _ in range(VERSIONS)]
        result[part] = {
            "image": np.stack(rows)[:, None].astype(np.float32),
            "label": np.repeat(labels, VERSIONS).astype(np.int64),
        }
    return result


def _seen(image: Array, random: np.random.Generator) -> Array:
    """One digit as a camera that is not held still sees it."""
    big = ndimage.zoom(image, SIDE / len(image), order=1)
    turned = ndimage.rotate(big, random.uniform(-20, 20), reshape=False, order=1)
    moved = ndimage.shift(turned, random.uniform(-6, 6, 2), order=1)
    return np.clip(moved * random.uniform(0.6, 1.0) + random.normal(0, 0.15, moved.shape), 0, 1)
