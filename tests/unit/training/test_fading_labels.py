"""Ten rounds of changing drift with all statistics there are: old labels that fade let every round recover."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import rotate

from cloud_hub.training.head import heads
from cloud_hub.training.head_statistics import Share
from tests.unit.insights.worlds import digit_outputs, unseen_digits

Array = npt.NDArray[Any]
#: How far the camera has turned in each round, degrees.
ROUNDS = (25, -25, 15, -15, 22, -22, 20, -20, 10, -25)
LABELLED = 600


@functools.cache
def features(degrees: int, noise: int) -> Array:
    """Of all digits, as a camera that has turned sees them in less light."""
    images = rotate(unseen_digits()[0].reshape(-1, 8, 8), degrees, axes=(1, 2), reshape=False, order=1)
    random = np.random.default_rng(noise)
    seen = np.clip(0.8 * images + random.normal(0.0, 0.06, images.shape), 0.0, 1.0)
    return digit_outputs(seen.reshape(-1, 64).astype(np.float32))[0]


def accuracies(fading: float) -> tuple[list[float], list[float]]:
    """After each round, of the head from all labels so far: in its own world, and in the clean one.

    Args:
        fading: what a label counts a round later.
    """
    labels, total = unseen_digits()[1], None
    now, before = [], []
    for number, degrees in enumerate(ROUNDS):
        latest = Share.of_rows(features(degrees, number)[:LABELLED], labels[:LABELLED], 10)
        total = latest if total is None else total.scaled(fading) + latest
        ((_, weight, bias),) = heads(total, "lda", (0.1,))
        for found, seen in ((now, features(degrees, 100 + number)), (before, features(0, 200))):
            right = (seen[LABELLED:] @ weight.T + bias).argmax(axis=1) == labels[LABELLED:]
            found.append(float(right.mean()))
    return now, before


def test_ten_rounds_recover_where_old_labels_fade() -> None:
    fading, _ = accuracies(0.25)
    lasting, _ = accuracies(1.0)
    assert min(fading) >= fading[0] - 0.05, fading
    assert np.mean(fading) > np.mean(lasting) and min(fading) > min(lasting), (fading, lasting)


def test_what_fades_is_not_forgotten_at_once() -> None:
    """The clean world, of which no label is left, is still better known than after the first round alone."""
    _, clean = accuracies(0.25)
    assert min(clean[2:]) > clean[0], clean
