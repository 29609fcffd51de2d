"""Answers as documents: an inference response of the Open Inference Protocol, and what a listener wants besides.

Pure. ``state`` is the one thing to show: the class, or else the first number of the first output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_agent.flows.ports import Array, Item, Result
from edge_agent.serving import oip
from edge_agent.serving.calls import Answer, Described


def result_of(
    answer: Answer, described: Described, labels: Sequence[str], *, source: str, item: Item, at: float
) -> Result:
    """The result of one item.

    Args:
        answer: the data plane's.
        described: of the model that answered: it says which output is what.
        labels: names of the classes, where they are known.
        source: name of the source.
        item: what was answered.
        at: unix seconds.
    """
    plain = [(name, array, False) for name, array in answer.outputs]
    head, _ = oip.write_response(answer.model, answer.version, answer.id, plain, answer.parameters)
    outputs = dict(answer.outputs)
    roles = {output.name: output.role for output in described.outputs}
    more = {"source": source, "item": dict(item.about), "time": round(at, 3), **summary(outputs, roles, labels)}
    tail = json.dumps(more, separators=(",", ":"), allow_nan=False).encode()
    return Result(answer.id, source, head[:-1] + b"," + tail[1:])


def summary(outputs: Mapping[str, Array], roles: Mapping[str, str], labels: Sequence[str]) -> dict[str, Any]:
    """``state``, and for a classifier ``confidence``, of the first row.

    Args:
        outputs: by name, [N, …].
        roles: name → probabilities, logits, label, features or other.
        labels: names of the classes.
    """
    by_role = {roles.get(name, "other"): first_row(array) for name, array in reversed(list(outputs.items()))}
    probabilities, label = by_role.get("probabilities"), by_role.get("label")
    found: dict[str, Any] = {}
    if label is not None and label.size == 1:
        found["state"] = _named(label.ravel()[0], labels)
    elif (scores := probabilities if probabilities is not None else by_role.get("logits")) is not None and scores.size:
        found["state"] = _named(np.argmax(scores), labels)
    elif outputs:
        found["state"] = _plain(next((v for v in map(first_row, outputs.values()) if v.size), np.empty(0)))
    if probabilities is not None and probabilities.size and math.isfinite(top := float(probabilities.max())):
        found["confidence"] = round(top, 6)
    return found or {"state": None}


def first_row(array: Array) -> Array:
    """The first row, as an array."""
    return np.asarray(array[0]) if array.ndim and len(array) else array


def _named(value: Any, labels: Sequence[str]) -> Any:
    if isinstance(value, str | bytes):
        return value.decode(errors="replace") if isinstance(value, bytes) else value
    index = int(value)
    return labels[index] if 0 <= index < len(labels) else index


def _plain(array: Array) -> Any:
    if not array.size:
        return None
    value = array.ravel()[0]
    if isinstance(value, str | bytes):
        return _named(value, ())
    number = value.item()
    return number if not isinstance(number, float) or math.isfinite(number) else None
