"""A row of a request as the tensors that leave the device: all of it, smaller pictures of it, or its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights.forms import InputForm
from edgeloop.protocol import ProtocolError
from edgeloop.protocol.inputs import Tensor

Array = npt.NDArray[Any]


def tensors_of(
    form: str,
    inputs: Mapping[str, Array],
    row: int,
    *,
    features: tuple[str, Array] | None = None,
    small_side: int = 224,
) -> dict[str, Tensor]:
    """One row, copied.

    Args:
        form: of `edgeloop.protocol.inputs.FORMS`.
        inputs: of the request, [N, …] each, by the names of the model's inputs.
        row: which.
        features: name of the features' output, and what it holds [N, …]; None where the run made none.
        small_side: pixels of the longer side of a picture in the form ``small``; what is no picture, or is smaller,
            travels as it is.

    Raises:
        ProtocolError: it cannot travel in this form.
    """
    if form == "features":
        if features is None:
            raise ProtocolError(
                "there are no features of this answer: the model has none, or the run did not make them"
            )
        name, found = features
        return {name: Tensor.of(found[row].reshape(-1))}
    rows = {name: array[row] if array.shape else array for name, array in inputs.items()}
    if form == "small":
        rows = {name: smaller(one, small_side) for name, one in rows.items()}
    return {name: Tensor.of(np.asarray(one)) for name, one in rows.items()}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of what they hold; their message is a few hundred larger."""
    return sum(len(tensor.data) for tensor in tensors.values())


def smaller(picture: Array, side: int) -> Array:
    """A picture whose longer side has ``side`` pixels at most, each the mean of what it covers.

    Args:
        picture: one row; what has the shape of no picture comes back as it is.
        side: pixels.
    """
    if not isinstance(picture, np.ndarray) or picture.ndim not in (2, 3):
        return picture
    form = InputForm.of(picture[None])
    if form.kind != "image":
        return picture
    # As [H, W, …] or [C, H, W]: the two axes that are not the channels'.
    down, across = (axis for axis in range(picture.ndim) if axis + 1 != form.channel_axis)
    longer = max(picture.shape[down], picture.shape[across])
    if longer <= side:
        return picture
    means = picture.astype(np.float64)
    for axis in (down, across):
        length = picture.shape[axis]
        means = _means(means, axis, max(1, round(length * side / longer)))
    if picture.dtype.kind in "iu":
        means = np.rint(means)
    return means.astype(picture.dtype)


def _means(array: Array, axis: int, pixels: int) -> Array:
    """Means of as many neighbouring stretches of an axis."""
    edges = np.arange(pixels + 1) * array.shape[axis] // pixels
    sums = np.add.reduceat(array, edges[:-1], axis=axis)
    lengths = np.diff(edges).reshape([-1 if place == axis else 1 for place in range(array.ndim)])
    return np.asarray(sums / lengths)
