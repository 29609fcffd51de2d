"""What the hub measures of a candidate itself, whoever the trainer is: validation set, latency and size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_hub.training.gate import Evidence, Slice
from cloud_hub.training.trainer import TrainingError
from edgeloop.package import Package, PackageError
from edgeloop.runtime import Evaluation, InferenceError, ModelLoadError, ModelSession, evaluate

Inputs = Mapping[str, npt.NDArray[Any]]

_CPU = "CPUExecutionProvider"
#: A run of one row that takes longer is a fault, seconds.
DEADLINE_S = 60.0
#: Pairs of runs that the two medians are of; fewer when they would take longer than `MEASURING_S`.
PAIRS, LEAST_PAIRS, MEASURING_S = 15, 3, 10.0


def measured(evidence: Evidence, base: Package, candidate: Package) -> Evidence:
    """The trainer's evidence, with what the hub has measured in place of whatever was said of it.

    Args:
        evidence: what the trainer says of the held-out feedback.
        base: the current release; its validation set and golden inputs are what both are measured on.
        candidate: audited.

    Raises:
        TrainingError: the candidate does not run, or answers what is no number.
    """
    now, before = _evaluations(base, candidate)
    worst = min(now.values(), key=lambda found: found.accuracy, default=None)
    latency, current_latency = _latencies(base, candidate)
    return replace(
        evidence,
        validation_accuracy=None if worst is None else worst.accuracy,
        current_validation_accuracy=min((found.accuracy for found in before.values()), default=None),
        validation_classes={} if worst is None else _classes(worst, candidate.meta.labels),
        latency_ms=latency,
        current_latency_ms=current_latency,
        size_bytes=candidate.index.total_bytes,
        current_size_bytes=base.index.total_bytes,
    )


def _evaluations(base: Package, candidate: Package) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """Variant → accuracy on the base's validation set, of both; a candidate does not choose what it is asked."""
    found = base.validation()
    if found is None:
        return {}, {}
    return _evaluated(candidate, *found), _evaluated(base, *found)


def _evaluated(package: Package, inputs: Inputs, labels: npt.NDArray[np.int64]) -> dict[str, Evaluation]:
    found = {}
    for variant in _here(package):
        with _loaded(package, variant) as session:
            found[variant] = evaluate(session, inputs, labels)
    return found


def _classes(found: Evaluation, labels: tuple[str, ...]) -> dict[str, Slice]:
    """Label → accuracy on the rows of this class."""
    rows = found.confusion.sum(axis=1)
    return {
        labels[k] if k < len(labels) else str(k): Slice(float(found.confusion[k, k] / rows[k]), int(rows[k]))
        for k in np.flatnonzero(rows)
    }


def _latencies(base: Package, candidate: Package) -> tuple[float | None, float | None]:
    """Median times of one row, candidate's and base's, milliseconds, in the variant where the candidate lost most."""
    row = {name: tensor[:1] for name, tensor in base.golden().inputs.items()}
    pairs = []
    for variant in _here(candidate):
        if variant in _here(base):
            with _loaded(candidate, variant) as new, _loaded(base, variant) as old:
                pairs.append(_interleaved(new, old, row))
    return max(pairs, key=lambda pair: pair[0] / pair[1], default=(None, None))


def _interleaved(new: ModelSession, old: ModelSession, row: Inputs) -> tuple[float, float]:
    """Medians of both, milliseconds; one after the other, so that a busy moment meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + MEASURING_S
    for pair in range(PAIRS + 1):
        for session, taken in zip((new, old), times, strict=True):
            began = time.perf_counter()
            session.run(row, None, DEADLINE_S)
            if pair:  # the first one warms up
                taken.append((time.perf_counter() - began) * 1e3)
        if pair >= LEAST_PAIRS and time.monotonic() > end:
            break
    return statistics.median(times[0]), statistics.median(times[1])


def _here(package: Package) -> list[str]:
    """Variants that run on this machine's processor."""
    return [name for name, spec in package.variants.items() if spec.device == "cpu"]


@contextmanager
def _loaded(package: Package, variant: str) -> Iterator[ModelSession]:
    try:
        session = ModelSession.load(package, variant, _CPU, policy="quiet")
        try:
            yield session
        finally:
            session.close()
    except (ModelLoadError, InferenceError, PackageError) as error:
        raise TrainingError(f"the variant {variant} of {package.version} cannot be measured: {error}") from error
