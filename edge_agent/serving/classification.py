"""The classification extension: an output as its highest values, each with its index and label. Pure.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge_agent.serving.calls import Answer, Described
from edge_agent.serving.errors import BadRequest, ServingError
from edge_agent.serving.tensors import Array


def classified(answer: Answer, wanted: Mapping[str, int], describe: Callable[[str, str | None], Described]) -> Answer:
    """An answer with some of its outputs as classifications.

    Args:
        answer: the data plane's.
        wanted: names of outputs, and how many classes of each.
        describe: says what a model is: an output with a score for each class gets the labels.

    Raises:
        BadRequest: an output has no order.
    """
    if not wanted:
        return answer
    labels: Sequence[str] = ()
    scores: set[str] = set()
    with contextlib.suppress(ServingError):  # it may have been unloaded in this moment
        model = describe(answer.model, answer.version)
        labels = model.labels
        scores = {spec.name for spec in model.outputs if spec.role in ("probabilities", "logits")}
    outputs = tuple(
        (name, classify(name, array, wanted[name], labels if name in scores else ()) if name in wanted else array)
        for name, array in answer.outputs
    )
    return answer._replace(outputs=outputs)


def classify(name: str, output: Array, count: int, labels: Sequence[str]) -> Array:
    """The ``count`` highest values of each row, or all when there are fewer.

    Args:
        name: the output's, for messages.
        output: [N, …] or [K].
        count: of values that are wanted; at least 1.
        labels: by index; () where the output's elements have none.

    Returns:
        BYTES [N, count], or [count] for a vector: ``value:index`` or ``value:index:label``, the highest first, as
        Triton writes them: six decimals for floats.

    Raises:
        BadRequest: the output has no order.
    """
    if output.dtype.kind not in "iuf":
        raise BadRequest(f"output {name!r} is {output.dtype}; only numbers can be asked for as a classification")
    width = math.prod(output.shape[1:]) if output.ndim > 1 else output.size
    rows = output.reshape(output.shape[0] if output.ndim > 1 else 1, width)
    # Backwards and back again: of equal values the first comes first.
    order = width - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    form = "{:.6f}" if output.dtype.kind == "f" else "{}"
    found = np.empty(order.shape, np.object_)
    for row, column in np.ndindex(order.shape):
        index = int(order[row, column])
        label = f":{labels[index]}" if index < len(labels) else ""
        found[row, column] = f"{form.format(rows[row, index])}:{index}{label}"
    return found if output.ndim > 1 else found[0]
