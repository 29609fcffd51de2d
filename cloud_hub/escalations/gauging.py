"""What a release's validation set says of thresholds: how hard each row is, and whether device and teacher are right.

The set runs on the hub's own runtime, through every variant that runs here: devices run one or another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from cloud_hub.teachers.port import Array, Opinion, Outcome, Question
from edgeloop.cascade.combining import better
from edgeloop.cascade.hardness import Gauge, told
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.insights.sizes import Floats
from edgeloop.package import Package
from edgeloop.runtime import InferenceError, ModelSession

#: Rows of a validation set that are looked at: the share of a thousand is known to 0.02 or better.
MOST_ROWS = 1000
#: Time for the runs of one variant, seconds; when it is over, those that are done have to do.
MEASURING_S = 20.0
#: With fewer rows nothing is said.
FEWEST_ROWS = 30
BATCH = 32
#: A run that takes longer is a fault, seconds.
DEADLINE_S = 60.0
_CPU = "CPUExecutionProvider"

Ask = Callable[[Sequence[Question]], Sequence[Outcome]]
"""Asks the teacher, in order."""


@dataclass(frozen=True, eq=False)
class Gauged:
    """Rows of a validation set, once for each variant.

    Attributes:
        hardness: before any teacher has taught the device, float64 [n] in 0…1.
        edge: bool [n], whether the release is right.
        given: bool [n], whether what the client gets is right when the row is escalated: the better of two answers.
        teacher_accuracy: on the rows that it answered, or None: nobody could ask it, and it is taken to be right.
    """

    hardness: Floats
    edge: Array
    given: Array
    teacher_accuracy: float | None


@dataclass(frozen=True, eq=False)
class _Seen:
    hardness: Floats
    predicted: Array
    features: tuple[str, Array] | None
    classes: int


def gauged(package: Package, policy: EscalationPolicy, channel: str, ask: Ask | None) -> Gauged | None:
    """Look at a release's validation set.

    Args:
        package: the release.
        policy: whose signals make a row hard, and what of it travels.
        channel: on whose account the teacher is asked.
        ask: asks the teacher; None: it is not to be asked.

    Returns:
        What was found; None where the package has no validation set, or no variant that runs here, or a small one.

    Raises:
        EdgeloopError: kinds of `PackageError`, `ModelLoadError` and `InferenceError`: it does not run.
    """
    found = package.validation()
    here = [name for name, spec in package.variants.items() if spec.device == "cpu"]
    if found is None or not here:
        return None
    inputs, labels = found
    chosen = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS]
    inputs, labels = {name: tensor[chosen] for name, tensor in inputs.items()}, labels[chosen]
    seen = [_through(package, variant, inputs, policy) for variant in here]
    rows = min(len(one.hardness) for one in seen)
    if rows < FEWEST_ROWS:
        return None
    labels = labels[:rows]
    edge = [one.predicted[:rows] == labels for one in seen]
    heard = None if ask is None else _heard(ask, _questions(package, inputs, seen[0], policy, channel, rows))
    if heard is None:
        given, accuracy = [np.ones(rows, dtype=bool)] * len(seen), None
    else:
        given = [_given(one, heard) == labels for one in seen]
        accuracy = float(np.mean([one.label == label for one, label in zip(heard, labels, strict=True) if one]))
    hardness = np.concatenate([one.hardness[:rows] for one in seen])
    return Gauged(hardness, np.concatenate(edge), np.concatenate(given), accuracy)


def _through(package: Package, variant: str, inputs: Mapping[str, Array], policy: EscalationPolicy) -> _Seen:
    """The rows through one variant, as an agent would see them."""
    hardness, predicted, kept, classes = [], [], [], 0
    end = time.monotonic() + MEASURING_S
    profile, rows = package.profile(), len(next(iter(inputs.values())))
    with closing(ModelSession.load(package, variant, _CPU, policy="quiet")) as session:
        scored = session.output("probabilities") or session.output("logits")
        if scored is None:
            raise InferenceError("the model has neither probabilities nor logits; nothing can be told of its answers")
        featured = session.output("features")
        names = [scored] if featured is None else [scored, featured]
        for start in range(0, rows, BATCH):
            if start and time.monotonic() > end:
                break
            part = {name: tensor[start : start + BATCH] for name, tensor in inputs.items()}
            outputs = dict(zip(names, session.run(part, names, DEADLINE_S), strict=True))
            scores = session.probabilities(outputs)
            if scores is None or scores.ndim != 2:
                raise InferenceError(f"output {scored} is no row of scores for each row; it is no classifier")
            classes = scores.shape[1]
            features = None if featured is None else outputs[featured].reshape(len(scores), -1)
            signals = Gauge(profile, classes).signals(scores, features, next(iter(part.values())))
            hardness.append(told(signals, policy.signals))
            predicted.append(scores.argmax(axis=1))
            if features is not None:
                kept.append(features)
    whole = (featured, np.concatenate(kept)) if featured is not None and kept else None
    return _Seen(np.concatenate(hardness), np.concatenate(predicted), whole, classes)


def _questions(
    package: Package, inputs: Mapping[str, Array], seen: _Seen, policy: EscalationPolicy, channel: str, rows: int
) -> list[Question]:
    """Each row as a teacher would get it; none where it would get what only devices make of a row."""
    if policy.travels == "features" and seen.features is not None:
        inputs = dict([seen.features])
    elif policy.travels != "input":
        return []
    labels = package.meta.labels
    return [
        Question(
            {name: np.asarray(tensor[row], dtype=tensor.dtype) for name, tensor in inputs.items()},
            labels,
            seen.classes,
            policy.travels,
            channel,
        )
        for row in range(rows)
    ]


def _heard(ask: Ask, questions: Sequence[Question]) -> list[Opinion | None] | None:
    """What the teacher says of each row, None where that is nothing; None where it answered less than half."""
    heard = [one if isinstance(one, Opinion) else None for one in ask(questions)]
    return heard if heard and heard.count(None) <= len(heard) / 2 else None


def _given(seen: _Seen, heard: Sequence[Opinion | None]) -> Array:
    """The classes that clients get of rows that are escalated, int64 [n]: the device's own where nobody answers."""
    rows = zip(seen.predicted.tolist(), seen.hardness.tolist(), heard, strict=False)  # of a slow variant, the first
    return np.array(
        [
            predicted if one is None else better(predicted, hard, one.label, one.confidence if one.calibrated else None)
            for predicted, hard, one in rows
        ],
        np.int64,
    )
