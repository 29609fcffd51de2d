"""Fitting a calibration on labelled validation rows: for whoever makes packages, in the exporter and in the hub."""

from __future__ import annotations

import numpy as np

from edgeloop.insights.calibration import FAMILIAR_SHARE, ISOTONIC, SCALING, Calibration, Familiar
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.observer import row_summaries
from edgeloop.insights.profile import Profile
from edgeloop.insights.sizes import Array, Floats, Ints

#: With fewer rows neither the chance nor the distance means anything.
FEWEST_ROWS = 40
#: The line in log odds is drawn between this many points of confidence; more change nothing.
KNOTS = 32
#: Log odds beyond this are those of a float32 probability of 1.
MOST_LOG_ODDS = 16.0
FOLDS = 5
#: A class has a centre of its own where classes have this many rows each, on average.
ROWS_PER_CENTRE = 8
#: Rows that count as many as the middle of all when a class's centre is computed.
CENTRE_PRIOR = 1.0
#: Share of the mean variance that every direction of the scatter gets, so that it can be inverted.
SHRINKAGE = 0.1


def calibrated(profile: Profile, inputs: Array, probabilities: Array, features: Array | None, truth: Array) -> Profile:
    """The profile with a calibration for these answers.

    Args:
        profile: of the release.
        inputs: the first input, [N, …].
        probabilities: what the release gives for them, [N, K].
        features: [N, F], or None when the model does not expose them.
        truth: true classes, int [N].

    Raises:
        InsightsError: there are too few rows, or the arrays do not fit the profile.
    """
    if truth.shape != (len(probabilities),):
        raise InsightsError(f"true classes are {truth.shape}; give one for each of {len(probabilities)} rows")
    rows = row_summaries(profile, inputs, probabilities, features)
    if len(rows.top) != len(truth):
        raise InsightsError("some validation rows are not finite; leave them out, or mend the model")
    schema = profile.schema
    places = rows.places(schema.place_widths[0]) if schema.place_widths else None
    calibration = fit(rows.confidence[0], rows.top, truth.astype(np.int64), classes=schema.classes, places=places)
    return profile.with_calibration(calibration)


def fit(confidence: Floats, predicted: Ints, truth: Ints, *, classes: int, places: Floats | None = None) -> Calibration:
    """A calibration from labelled rows.

    Of two ways to draw the chance, the one is taken that says more about rows that it has not seen:
    docs/decisions/insights-accuracy.md.

    Args:
        confidence: the largest probability of each, float64 [n].
        predicted: its class, int64 [n].
        truth: the true class, int64 [n].
        classes: K.
        places: where each row lies, float64 [Z, n]: `Rows.places`; None: not known.

    Raises:
        InsightsError: there are too few rows, or the arrays do not fit one another.
    """
    if not confidence.shape == predicted.shape == truth.shape == (len(truth),):
        raise InsightsError("confidence, predicted and true classes have to be three arrays of one length")
    if len(truth) < FEWEST_ROWS:
        raise InsightsError(f"{len(truth)} labelled rows are too few to calibrate; give at least {FEWEST_ROWS}")
    right = predicted == truth
    method = better(confidence, right)
    return Calibration(
        *_fitted(method, confidence, right),
        rows=len(right),
        right=int(right.sum()),
        method=method,
        familiar=None if places is None or not len(places) else _familiar(places, predicted, truth, classes),
    )


def _familiar(places: Floats, predicted: Ints, truth: Ints, classes: int) -> Familiar:
    """Centres and scatter of labelled rows [Z, n], and how far from the centre of the predicted class they lie.

    What is familiar comes from rows that took no part in centres and scatter: rows that did lie closer.
    """
    folds = np.arange(len(truth)) % FOLDS
    unseen = np.empty(len(truth))
    for fold in range(FOLDS):
        out = folds == fold
        part = Familiar(*_centres(places[:, ~out], truth[~out], classes))
        unseen[out] = part.distance(places[:, out], predicted[out])
    limit = max(float(np.quantile(unseen, FAMILIAR_SHARE)), 1e-9)
    centres, whitening = _centres(places, truth, classes)
    return Familiar(centres, whitening / np.sqrt(limit))


def _centres(places: Floats, truth: Ints, classes: int) -> tuple[Floats, Floats]:
    """Centres [K or 1, Z] and whitening [Z, Z]."""
    rows = places.T
    middle = rows.mean(axis=0)
    if len(truth) >= ROWS_PER_CENTRE * classes:
        count = np.bincount(truth, minlength=classes)[:, None]
        sums = np.zeros((classes, rows.shape[1]))
        np.add.at(sums, truth, rows)
        centres = (sums + CENTRE_PRIOR * middle) / (count + CENTRE_PRIOR)
        away = rows - centres[truth]
    else:
        centres, away = middle[None], rows - middle
    scatter = away.T @ away / len(rows)
    width = len(scatter)
    scatter = (1 - SHRINKAGE) * scatter + SHRINKAGE * np.trace(scatter) / width * np.eye(width)
    values, directions = np.linalg.eigh(scatter)
    return centres, directions / np.sqrt(np.maximum(values, 1e-30))


def better(confidence: Floats, right: Array) -> str:
    """The method whose chances fit unseen rows better; scaling, unless the other is better beyond its own noise."""
    folds = np.arange(len(right)) % FOLDS
    loss = {}
    for method in (SCALING, ISOTONIC):
        loss[method] = np.empty(len(right))
        for fold in range(FOLDS):
            out = folds == fold
            knots, chances = _fitted(method, confidence[~out], right[~out])
            chance = np.interp(confidence[out], knots, chances)
            loss[method][out] = -np.log(np.where(right[out], chance, 1 - chance))
    gain = loss[SCALING] - loss[ISOTONIC]
    return ISOTONIC if gain.mean() > gain.std() / np.sqrt(len(gain)) else SCALING


def _fitted(method: str, confidence: Floats, right: Array) -> tuple[Floats, Floats]:
    """Knots and chances. No chance is nearer to 0 or 1 than so many rows can say (Laplace)."""
    knots, chances = _scaled(confidence, right) if method == SCALING else _isotonic(confidence, right)
    least = 1 / (len(right) + 2)
    return knots, np.clip(chances, least, 1 - least)


def _scaled(confidence: Floats, right: Array) -> tuple[Floats, Floats]:
    """A straight line in log odds: logistic regression on the log odds of the confidence.

    Platt (1999), with his targets, which keep the line finite where all rows are right; Newton's method.
    """
    x = log_odds(confidence)
    good, n = int(right.sum()), len(right)
    target = np.where(right, (good + 1) / (good + 2), 1 / (n - good + 2))
    design = np.stack([np.ones(n), x])
    line = np.array([0.0, 1.0])
    ridge = np.diag([1e-6, 1e-3])  # a slope of 1, unless the rows say otherwise
    for _ in range(50):
        p = _logistic(line @ design)
        gradient = design @ (target - p) - ridge @ (line - [0.0, 1.0])
        step = np.linalg.solve((design * (p * (1 - p) + 1e-9)) @ design.T + ridge, gradient)
        line = line + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    line[1] = max(line[1], 0.0)  # never falling
    grid = np.linspace(-MOST_LOG_ODDS / 2, MOST_LOG_ODDS, KNOTS)
    return _logistic(grid), _logistic(line[0] + line[1] * grid)


def _isotonic(confidence: Floats, right: Array) -> tuple[Floats, Floats]:
    """The rising step function nearest to the rows (pool adjacent violators); between two steps it is a line."""
    order = np.argsort(confidence, kind="stable")
    blocks: list[tuple[int, int]] = []  # of each step: its rows, and the right ones
    for one in right[order].tolist():
        blocks.append((1, int(one)))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][0] >= blocks[-1][1] * blocks[-2][0]:
            last = blocks.pop()
            blocks[-1] = (blocks[-1][0] + last[0], blocks[-1][1] + last[1])
    count, good = np.array(blocks).T
    ends = np.cumsum(count)
    # Each step shrinks by a row to the share of all: a step of three right rows is not certainty.
    steps = np.maximum.accumulate((good + right.mean()) / (count + 1))
    sides = np.stack([ends - count, ends - 1], axis=1)
    return confidence[order][sides].ravel(), np.repeat(steps, 2)


def _logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def log_odds(confidence: Array) -> Floats:
    """Log of p / (1 - p), within ±`MOST_LOG_ODDS`."""
    p = np.clip(np.asarray(confidence, np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.clip(np.log(p) - np.log1p(-p), -MOST_LOG_ODDS, MOST_LOG_ODDS))
