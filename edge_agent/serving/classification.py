"""The classification extension: an output as its highest values, each with its index and label. Pure.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_agent.serving.errors import BadRequest
from edge_agent.serving.tensors import Array


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
