"""What the pictures were like: their light, their contrast and their sharpness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Array, Floats, Sizes

TITLES = ("image brightness", "image contrast", "image sharpness")
#: Points of the grid on each axis, at most: an image of 224 x 224 then costs little more than one of 28 x 28, and the
#: mean of 256 points is known to 6 % of their spread, which is far less than images differ.
SIDE = 16
#: Of four channels the fourth is how opaque a pixel is, and not what it looks like.
COLOURS = 3


class Images(Histogram):
    """``images`` int64 [3, B], or [0, B]: the measures that `TITLES` names, of the first input."""

    name = "images"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.images

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return TITLES[row]

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        if rows.inputs is None or not rows.profile.schema.images:
            return None
        return image_measures(rows.inputs, rows.profile.form.channel_axis)


def image_measures(images: Array, channel_axis: int) -> Floats:
    """Brightness, contrast and sharpness on a grid of at most `SIDE` x `SIDE` inner pixels.

    Brightness is the mean over the grid of the mean over the colours; contrast its standard deviation; sharpness the
    standard deviation of the Laplacian (four times a pixel less its four neighbours): a picture out of focus, or moved
    while it was taken, has little of it.

    Args:
        images: numeric [n, H, W], or with an axis of 1, 3 or 4 channels; H and W ≥ 3.
        channel_axis: 1 or 3; 0 when there is none.

    Returns:
        float64 [3, n], in the order of `TITLES` and in the input's own unit.
    """
    planes = np.moveaxis(images, channel_axis, 0)[:COLOURS] if channel_axis else images[None]
    rows, columns = (_grid(size) for size in planes.shape[2:])

    def light(down: int, right: int) -> Floats:
        there = (slice(None), _moved(rows, down), _moved(columns, right))
        total: Floats = planes[0][there].astype(np.float64)
        for plane in planes[1:]:  # one after the other: a reduction over the colours is slow where they lie together
            total += plane[there]
        return total

    centre = light(0, 0)
    laplacian = 4 * centre - light(-1, 0) - light(1, 0) - light(0, -1) - light(0, 1)
    mean, contrast = _mean_and_spread(centre)
    measures = np.stack([mean, contrast, _mean_and_spread(laplacian)[1]])
    return np.asarray(measures / len(planes), np.float64)


def _grid(size: int) -> slice:
    """Inner pixels of one axis at equal distances."""
    inner = size - 2
    step = -(-inner // SIDE)
    return slice(1 + (inner - 1) % step // 2, size - 1, step)


def _moved(grid: slice, by: int) -> slice:
    return slice(grid.start + by, grid.stop + by, grid.step)


def _mean_and_spread(values: Floats) -> tuple[Floats, Floats]:
    """Of each plane of [n, k, l]."""
    mean = values.mean(axis=(1, 2))
    away = values - mean[:, None, None]
    return mean, np.sqrt(np.einsum("nkl,nkl->n", away, away) / (values.shape[1] * values.shape[2]))
