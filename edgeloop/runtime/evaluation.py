"""Accuracy of a session on labelled data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.records import dataclass
from edgeloop.runtime.errors import InferenceError
from edgeloop.runtime.session import ModelSession


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracy in 0…1, confusion int64 [K, K] (row: true label, column: predicted), number of rows."""

    accuracy: float
    confusion: npt.NDArray[np.int64]
    n: int


def evaluate(
    session: ModelSession, inputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64], batch: int = 64
) -> Evaluation:
    """Run labelled rows through a classifier.

    Args:
        session: of a model with probabilities or logits.
        inputs: by name, [N, …].
        labels: true labels int64 [N], in 0…K-1.
        batch: rows of one run.

    Raises:
        InferenceError: the model has neither probabilities nor logits, failed, or gave what is not finite;
            or the labels are none of its own.
    """
    name = session.output("probabilities") or session.output("logits")
    if name is None:
        raise InferenceError("the model has neither probabilities nor logits; nothing can be evaluated")
    if not len(labels):
        raise InferenceError("there are no labelled rows; nothing can be evaluated")
    found = []
    for start in range(0, len(labels), batch):
        part = {key: values[start : start + batch] for key, values in inputs.items()}
        (scores,) = session.run(part, [name], 60.0)
        if not np.isfinite(scores).all():
            raise InferenceError(f"output {name} is not finite on the validation data")
        found.append(scores)
    scores = np.concatenate(found)
    if scores.ndim != 2 or scores.shape[0] != len(labels):
        raise InferenceError(f"output {name} has the shape {scores.shape} for {len(labels)} labelled rows")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InferenceError(f"labels are {labels.min()} to {labels.max()}; the model has {scores.shape[1]} classes")
    predicted = scores.argmax(axis=1)
    confusion = np.zeros((scores.shape[1], scores.shape[1]), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Evaluation(float(np.mean(predicted == labels)), confusion, len(labels))
