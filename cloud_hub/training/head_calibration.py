"""What a new head's confidence means, and which rows are familiar to it, from sums alone. Pure.

The rows that a calibration is fitted on (`edgeloop.insights.calibrating`) are not here, so rows are drawn in their
place: those of each class normal, with its mean over all labels and the covariance of the held-out share, as logits of
the head that never saw that share, and as projections of the features.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cloud_hub.training.head import HeadFit
from cloud_hub.training.head_statistics import Floats, HeadStatistics
from edgeloop.insights.calibrating import FEWEST_ROWS, fit
from edgeloop.insights.calibration import Calibration

DRAWS = 4_096
#: Real tails are heavier than normal ones, and the means of the classes lie closer to the labels that made them than to
#: others. With so many times the variance the accuracy of 24 heads of drifted digits was 0.01 to 0.02 too high on
#: average, 0.05 off with 200 labels and 0.02 with 600; with once the variance, 0.1 too high.
TAILS = 2.0


def head_calibration(statistics: HeadStatistics, head: HeadFit, projections: Floats) -> Calibration | None:
    """The calibration of a head that was fitted to these statistics.

    Args:
        statistics: that it was fitted to.
        head: it.
        projections: of the features, float64 [P, F]; [0, F] for none.

    Returns:
        None when the held-out labels are worth fewer than `FEWEST_ROWS` rows: then nothing can be said. Its rows are
        what the held-out labels are worth, so that an estimate knows how little it rests on.
    """
    held, classes = statistics.holdout, statistics.holdout.classes
    worth = int(held.worth)
    if worth < FEWEST_ROWS:
        return None
    # Where rows lie is taken without the tails: a row in them is to count as less familiar, not as more.
    both = np.concatenate([head.trial_weight, projections / math.sqrt(TAILS)])
    freedom = TAILS * held.worth / max(held.worth - int((held.count > 0).sum()), 1.0)
    values, vectors = np.linalg.eigh(both @ (held.within_covariance * freedom) @ both.T)
    truth = np.repeat(np.arange(classes), np.round(DRAWS * statistics.all.priors).astype(np.int64))
    random = np.random.Generator(np.random.PCG64(0))
    truth = truth[random.permutation(len(truth))]
    noise = random.standard_normal((len(truth), len(both))) * np.sqrt(np.maximum(values, 0.0))
    moved = noise @ vectors.T
    means = statistics.all.class_means
    logits = (means @ head.trial_weight.T + head.trial_bias)[truth] + moved[:, :classes]
    places = ((means @ projections.T)[truth] + moved[:, classes:]).T
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    found = fit(
        scores.max(axis=1),
        scores.argmax(axis=1).astype(np.int64),
        truth.astype(np.int64),
        classes=classes,
        places=places if len(projections) else None,
    )
    return replace(found, rows=worth, right=round(worth * found.accuracy))
