"""From pictures UINT8 [N, H, W, 3] in RGB to what a model takes, by standard operators alone.

A picture that has the size of `ImageSteps.picture` already passes the first half unchanged: so those that the agent has
made small and those that come large are treated alike, up to the rounding of pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from model_export.processing.pieces import Pieces
from model_export.processing.steps import ImageSteps

INPUT = "image"
#: The first whose Resize looks at all pixels that become one (``antialias``); without, small pictures are noise.
OPSET = 18
#: Of ITU-R BT.601 in 16 bits, as Pillow's mode L has them; their sum is 65,536.
_GREY = (19595, 38470, 7471)
#: Keys' cubic, as Pillow and PyTorch have it with antialiasing.
_CUBIC = -0.5


def image_pieces(steps: ImageSteps, output: str, kind: int) -> Pieces:
    """The graph.

    Args:
        steps: what is declared.
        output: name of the model's input.
        kind: its ``TensorProto`` data type.
    """
    to = Pieces()
    pixels = to.take(INPUT, TensorProto.UINT8, ["N", "H", "W", 3])
    if steps.fit == "crop":
        pixels = _middle(to, pixels, steps)
    pixels = _cut(to, _resized(to, pixels, steps), steps)
    if steps.colours == "bgr":
        pixels = to.add("Gather", [pixels, to.constant("bgr", [2, 1, 0])], "channels", axis=3)
    elif steps.colours == "grey":
        pixels = _grey(to, pixels)
    if kind != TensorProto.UINT8:
        pixels = _scaled(to, to.add("Cast", [pixels], "floats", to=TensorProto.FLOAT), steps)
    channels = 1 if steps.colours == "grey" else 3
    shapes = {
        "NCHW": ("N", channels, steps.height, steps.width),
        "NHWC": ("N", steps.height, steps.width, channels),
        "NHW": ("N", steps.height, steps.width),
        "flat": ("N", steps.height * steps.width * channels),
    }
    if steps.layout == "NCHW":
        pixels = to.add("Transpose", [pixels], "laid", perm=[0, 3, 1, 2])
    elif steps.layout == "NHW":
        pixels = to.add("Squeeze", [pixels, to.constant("last", [3])], "laid")
    elif steps.layout == "flat":
        pixels = to.add("Reshape", [pixels, to.constant("rows", [0, -1])], "laid")
    if kind not in (TensorProto.UINT8, TensorProto.FLOAT):
        pixels = to.add("Cast", [pixels], "typed", to=kind)
    to.give(pixels, output, kind, shapes[steps.layout])
    return to


def _middle(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    """The largest middle of the wanted aspect ratio, as `edgeloop.pictures.middle` takes it.

    It is taken first: a picture of one row and a million columns would be resized to gigabytes otherwise.
    """
    height, width = steps.covered
    found = to.add("Shape", [pixels], "shape")
    sides = to.add("Slice", [found, to.constant("from", [1]), to.constant("to", [3])], "sides")
    # Height by width's share and width by height's, rounded: (2 · H · w + h) / 2h in whole numbers.
    turned = to.add("Gather", [sides, to.constant("turned", [1, 0])], "sides.turned", axis=0)
    doubled = to.add("Mul", [turned, to.constant("factors", [2 * height, 2 * width])], "doubled")
    halves = to.add("Add", [doubled, to.constant("halves", [width, height])], "halved.up")
    scaled = to.add("Div", [halves, to.constant("divisors", [2 * width, 2 * height])], "in.proportion")
    part = to.add("Max", [to.add("Min", [sides, scaled], "at.most"), to.constant("pixel", [1])], "part")
    start = to.add("Div", [to.add("Sub", [sides, part], "rest"), to.constant("half", [2])], "start")
    end = to.add("Add", [start, part], "end")
    return to.add("Slice", [pixels, start, end, to.constant("axes", [1, 2])], "middle")


def _resized(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    more: dict[str, Any] = {"mode": steps.resample, "coordinate_transformation_mode": "half_pixel", "axes": [1, 2]}
    if steps.resample == "nearest":
        more["nearest_mode"] = "round_prefer_ceil"  # as Pillow takes it
    else:
        more["antialias"] = 1
    if steps.resample == "cubic":
        more["cubic_coeff_a"] = _CUBIC
    return to.add("Resize", [pixels, "", "", to.constant("size", steps.covered)], "resized", **more)


def _cut(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    """The middle of what was resized to more than is wanted."""
    if steps.covered == (steps.height, steps.width):
        return pixels
    wanted = np.array([steps.height, steps.width])
    start = (np.array(steps.covered) - wanted) // 2
    ends = [to.constant("cut.from", start), to.constant("cut.to", start + wanted), to.constant("cut.axes", [1, 2])]
    return to.add("Slice", [pixels, *ends], "cut")


def _grey(to: Pieces, pixels: str) -> str:
    numbers = to.add("Cast", [pixels], "whole", to=TensorProto.INT32)
    weighed = to.add("Mul", [numbers, to.constant("grey", _GREY, "int32")], "weighed")
    bright = to.add("ReduceSum", [weighed, to.constant("channel", [3])], "summed", keepdims=1)
    rounded = to.add("Add", [bright, to.constant("rounding", 1 << 15, "int32")], "rounded")
    shifted = to.add("Div", [rounded, to.constant("sixteen.bits", 1 << 16, "int32")], "brightness")
    return to.add("Cast", [shifted], "grey.pixels", to=TensorProto.UINT8)


def _scaled(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    pixels = to.add("Mul", [pixels, to.constant("scale", steps.scale, "float32")], "scaled")
    if steps.mean:
        pixels = to.add("Sub", [pixels, to.constant("mean", steps.mean, "float32")], "centred")
    if steps.std:
        pixels = to.add("Div", [pixels, to.constant("std", steps.std, "float32")], "normed")
    return pixels
