"""The observer: adds batches of predictions, and labels, to a window. No loop over rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import MAX_VALUE, MAX_WEIGHT, Labels, Rows, shortened
from edgeloop.insights.aspects.counts import ERRORS, ESCALATIONS
from edgeloop.insights.aspects.health import add_health
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array, Floats, Ints
from edgeloop.insights.summaries import flatten, input_summaries, row_width, summarise
from edgeloop.insights.window import Window

if TYPE_CHECKING:
    from edgeloop.insights.profile import Profile

_NOT_MEASURED: Ints = np.zeros(0, np.int64)


class Observer:
    """Counts what a profile knows. It has no state of its own: everything goes into the window that is given.

    A window must not be used from two threads at once.

    Attributes:
        profile: what normal is.
        clip: no feature vector is longer than this in sums, so that the noise of differential privacy has a bound to go
            by; it may be changed between two batches.
    """

    def __init__(self, profile: Profile, clip: float = math.inf) -> None:
        self.profile, self.clip = profile, clip

    def observe(
        self,
        window: Window,
        inputs: Array | None,
        probabilities: Array,
        features: Array | None,
        latency_ns: Array,
        nonfinite: int = 0,
        *,
        queue_ns: Array = _NOT_MEASURED,
        run_ns: Array = _NOT_MEASURED,
        drawn: Array | None = None,
    ) -> None:
        """Add a batch of answered predictions.

        A row that holds a number that is not finite (or beyond ±1e30) is counted as a prediction and as non-finite, and
        is left out of everything else.

        Args:
            window: changed in place.
            inputs: the first input, [N, …], or None: then nothing is counted of it.
            probabilities: [N, K].
            features: [N, F], or None: then nothing is counted of them.
            latency_ns: of the request of each row, int64 [N], or [0] when it was not measured.
            nonfinite: rows among the N that the caller knows to hold a non-finite output; counted if it found more than
                are found here.
            queue_ns: of the latency, the waiting for a place to run; int64 [N] or [0].
            run_ns: of the latency, the run of the model; int64 [N] or [0].
            drawn: bool [N], which rows were drawn for an audit (:func:`edgeloop.insights.drawn_rows`); None: none.

        Raises:
            InsightsError: the arrays do not fit the profile; the window is unchanged.
        """
        rows = row_summaries(
            self.profile,
            inputs,
            probabilities,
            features,
            latency_ns,
            nonfinite,
            queue_ns=queue_ns,
            run_ns=run_ns,
            clip=self.clip,
            drawn=drawn,
        )
        _same_schema(window, self.profile.schema)
        for aspect in ASPECTS:
            aspect.observe(window.arrays, rows)

    def feedback(
        self,
        window: Window,
        features: Array | None,
        predicted: Array,
        labels: Array,
        holdout: Array,
        *,
        confidence: Array | None = None,
        audited: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Add true labels of earlier predictions.

        Args:
            window: changed in place.
            features: of those predictions, [M, F], or None; a row that is not finite has no features.
            predicted: the classes predicted then, int [M].
            labels: the true classes, int [M].
            holdout: bool [M], whether each goes to the held-out share: :func:`edgeloop.insights.holdout_share`.
            confidence: of those predictions, [M], or None when it is not known.
            audited: bool [M], whether each was drawn for an audit when it was answered; None: none.
            weights: of each in the head statistics, float64 [M], ≥ 1: the inverse of the probability with which it was
                chosen to be labelled (Horvitz and Thompson 1952); None: 1. Where features are clipped for the sake of
                noise, every label weighs 1.

        Raises:
            InsightsError: the arrays do not fit the profile; the window is unchanged.
        """
        _same_schema(window, self.profile.schema)
        batch = _labels(self.profile, features, predicted, labels, holdout, confidence, audited, weights, self.clip)
        for aspect in ASPECTS:
            aspect.feedback(window.arrays, batch)

    def error(self, window: Window, count: int = 1) -> None:
        """Add requests that failed through the model's or the agent's fault."""
        window.arrays["counts"][ERRORS] += count

    def escalation(self, window: Window, count: int = 1) -> None:
        """Add inputs that were sent to the hub's teacher."""
        window.arrays["counts"][ESCALATIONS] += count

    def health(
        self,
        window: Window,
        rss_bytes: float | None = None,
        cpu_share: float | None = None,
        temperature_c: float | None = None,
    ) -> None:
        """Add one sample of the device's health; None is left out.

        Args:
            window: changed in place.
            rss_bytes: resident memory, bytes.
            cpu_share: processor use, 1.0 = one core.
            temperature_c: °C.
        """
        add_health(window.arrays, rss_bytes, cpu_share, temperature_c)


def row_summaries(
    profile: Profile,
    inputs: Array | None,
    probabilities: Array,
    features: Array | None,
    latency_ns: Array = _NOT_MEASURED,
    nonfinite: int = 0,
    *,
    queue_ns: Array = _NOT_MEASURED,
    run_ns: Array = _NOT_MEASURED,
    clip: float = math.inf,
    drawn: Array | None = None,
) -> Rows:
    """A checked batch with its summaries; arguments as in :meth:`Observer.observe`."""
    schema, count = profile.schema, len(probabilities)
    _check_batch(profile, inputs, probabilities, features)
    if drawn is not None and drawn.shape != (count,):
        raise InsightsError(f"{drawn.shape} marks of audits were given for {count} rows")
    latencies, queues, runs = (_times(measured, count) for measured in (latency_ns, queue_ns, run_ns))
    given = features if schema.features else None
    summaries = summarise(flatten(inputs), profile.seed) if schema.inputs and inputs is not None else None
    exact = None if given is None else given.astype(np.float64)
    if not _all_finite(probabilities, summaries, exact):
        keep = _finite_rows(probabilities, summaries, exact)
        probabilities = probabilities[keep]
        inputs = None if inputs is None else inputs[keep]
        summaries = None if summaries is None else summaries[:, keep]
        exact = None if exact is None else exact[keep]
        drawn = None if drawn is None else drawn[keep]
    top = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(top)), top].astype(np.float64)[None]
    left_out = min(max(count - len(top), nonfinite), count)
    return Rows(
        profile,
        count,
        left_out,
        top,
        confidence,
        probabilities,
        inputs,
        summaries,
        exact,
        latencies,
        queues,
        runs,
        clip,
        drawn,
    )


def _all_finite(probabilities: Array, summaries: Floats | None, features: Floats | None) -> bool:
    # One reduction an array; NaN fails the comparison. Only when it fails are the rows looked at.
    parts = [part for part in (probabilities, summaries, features) if part is not None and part.size]
    return all(part.min() >= -MAX_VALUE and part.max() <= MAX_VALUE for part in parts)


def _finite_rows(probabilities: Array, summaries: Floats | None, features: Floats | None) -> Array:
    keep = (np.abs(probabilities) <= MAX_VALUE).all(axis=1)
    if summaries is not None:
        keep &= (np.abs(summaries) <= MAX_VALUE).all(axis=0)
    if features is not None:
        keep &= (np.abs(features) <= MAX_VALUE).all(axis=1)
    return np.asarray(keep)


def _check_batch(profile: Profile, inputs: Array | None, probabilities: Array, features: Array | None) -> None:
    schema = profile.schema
    if probabilities.ndim != 2 or probabilities.shape[1] != schema.classes:
        raise InsightsError(
            f"probabilities have the shape {probabilities.shape}; the profile says [N, {schema.classes}]"
        )
    count = len(probabilities)
    if inputs is not None and (schema.inputs or schema.texts):
        fits = inputs.ndim and len(inputs) == count and profile.form.fits(inputs)
        if not fits or (schema.inputs and input_summaries(row_width(inputs)) != schema.inputs):
            raise InsightsError(
                f"inputs are {inputs.dtype} {list(inputs.shape)}; the profile says {count} other rows of "
                f"{profile.form.kind}"
            )
    if features is not None and schema.features and features.shape != (count, schema.features):
        raise InsightsError(f"features have the shape {features.shape}; the profile says [{count}, {schema.features}]")


def _times(measured: Array, count: int) -> Ints:
    if measured.shape not in ((count,), (0,)):
        raise InsightsError(f"latencies have the shape {measured.shape}; give one for each of {count} rows, or none")
    return np.asarray(measured, dtype=np.int64)


def _labels(
    profile: Profile,
    features: Array | None,
    predicted: Array,
    labels: Array,
    holdout: Array,
    confidence: Array | None,
    audited: Array | None,
    weights: Array | None,
    clip: float,
) -> Labels:
    schema, count = profile.schema, len(labels)
    marks = np.zeros(count, dtype=bool) if audited is None else np.asarray(audited, dtype=bool)
    if not predicted.shape == labels.shape == holdout.shape == marks.shape == (count,):
        raise InsightsError("predicted classes, labels and marks of each have to be arrays of one length")
    sure = None if confidence is None else np.asarray(confidence, np.float64)
    if sure is not None and (sure.shape != (count,) or not (np.abs(sure) <= MAX_VALUE).all()):
        raise InsightsError(f"confidences have the shape {sure.shape}, or are not finite; give one for each label")
    weighed = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if weighed.shape != (count,) or not ((weighed >= 1) & (weighed <= MAX_WEIGHT)).all():
        raise InsightsError(f"weights have the shape {weighed.shape}, or are not in 1…{MAX_WEIGHT:g}; give one a label")
    for what, classes in (("predicted class", predicted), ("label", labels)):
        if classes.dtype.kind not in "iu" or (count and not 0 <= classes.min() <= classes.max() < schema.classes):
            raise InsightsError(f"a {what} is not an integer from 0 to {schema.classes - 1}")
    if clip < math.inf:
        weighed = np.ones(count)  # noise hides a label that weighs 1, and no heavier one
    known: Array = np.zeros(count, dtype=bool)
    exact: Floats | None = None
    if features is not None and schema.features:
        if features.shape != (count, schema.features):
            raise InsightsError(
                f"features have the shape {features.shape}; the profile says [{count}, {schema.features}]"
            )
        wide = features.astype(np.float64)
        known = np.asarray((np.abs(wide) <= MAX_VALUE).all(axis=1))
        exact = shortened(wide[known], clip)
    return Labels(
        profile,
        predicted.astype(np.int64),
        labels.astype(np.int64),
        exact,
        known,
        np.asarray(holdout, dtype=bool),
        marks,
        sure,
        clip,
        weighed,
    )


def _same_schema(window: Window, schema: WindowSchema) -> None:
    if window.schema is not schema and window.schema != schema:
        raise InsightsError(
            f"the window has the schema {window.schema}, the profile {schema}; open a window of this release"
        )
