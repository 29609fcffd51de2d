"""Pixels as a tensor: what a picture and a camera's frame have in common once they are decoded and resized. Pure."""

from __future__ import annotations

import numpy as np

from edge_agent.flow_settings import PictureSettings
from edge_agent.flows.ports import Array
from edgeloop import pictures
from edgeloop.runtime.datatypes import numpy_dtype

Pixels = pictures.Pixels


def tensor(pixels: Pixels, settings: PictureSettings) -> Array:
    """One row for a model: (pixel · scale - mean) / std, laid out as the settings say.

    Args:
        pixels: uint8 [H, W, C], with C and the channels' order as in the settings already.
        settings: scale, mean, std, layout and datatype.

    Returns:
        [1, C, H, W], [1, H, W, C], [1, H, W] or [1, H·W·C] of the settings' datatype.
    """
    laid = pixels.transpose(2, 0, 1) if settings.layout == "NCHW" else pixels
    if settings.datatype == "UINT8":
        values: Array = laid
    else:
        values = laid.astype(np.float32) * np.float32(settings.scale)
        if settings.mean:
            values -= _by_channel(settings.mean, settings.layout)
        if settings.std:
            values /= _by_channel(settings.std, settings.layout)
    height, width, channels = pixels.shape
    shapes = {
        "NCHW": (1, channels, height, width),
        "NHWC": (1, height, width, channels),
        "NHW": (1, height, width),
        "flat": (1, height * width * channels),
    }
    return np.ascontiguousarray(values, numpy_dtype(settings.datatype)).reshape(shapes[settings.layout])


def middle(width: int, height: int, settings: PictureSettings) -> tuple[int, int, int, int]:
    """What of a picture is resized: left, top, right and bottom, pixels; the largest middle of the wanted aspect ratio.

    Args:
        width: the picture's.
        height: the picture's.
        settings: the wanted size, and whether other aspect ratios are cropped at all.
    """
    fit = fit_of(settings)
    return (0, 0, width, height) if fit is None else pictures.middle(width, height, fit)


def fit_of(settings: PictureSettings) -> pictures.Fit | None:
    """The size that the settings want; None: as it comes."""
    if not settings.width:
        return None
    return pictures.Fit(settings.width, settings.height, settings.resize == "crop")


def _by_channel(numbers: tuple[float, ...], layout: str) -> Array:
    values = np.asarray(numbers, np.float32)
    return values.reshape(-1, 1, 1) if layout == "NCHW" else values
