"""From pictures UINT8 [N, H, W, 3] in RGB to what a model takes, by standard operators alone.

A picture that has the size of `ImageSteps.picture` already passes the first half unchanged: so those that the agent has
made small and those that come large are treated alike, up to the rounding of pixels.
"""

from __future__ import annotations

from typing import Any

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
    pixels = _middle(to, _resized(to, pixels, steps), steps)
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


def _resized(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    height, width = steps.covered
    sizes = to.constant("size", [height, width])
    if steps.fit == "crop":
        # The smallest size of the picture's aspect ratio that covers the wanted one; whole numbers, rounded down.
        found = to.add("Shape", [pixels], "found")
        high = to.add("Gather", [found, to.constant("one", [1])], "found.height", axis=0)
        wide = to.add("Gather", [found, to.constant("two", [2])], "found.width", axis=0)
        wanted_high, wanted_wide = to.constant("height", [height]), to.constant("width", [width])
        for_width = to.add("Div", [to.add("Mul", [high, wanted_wide], "scaled.height"), wide], "covering.height")
        for_height = to.add("Div", [to.add("Mul", [wide, wanted_high], "scaled.width"), high], "covering.width")
        sizes = to.add(
            "Concat",
            [
                to.add("Max", [for_width, wanted_high], "new.height"),
                to.add("Max", [for_height, wanted_wide], "new.width"),
            ],
            "covering",
            axis=0,
        )
    more: dict[str, Any] = {"mode": steps.resample, "coordinate_transformation_mode": "half_pixel", "axes": [1, 2]}
    if steps.resample != "nearest":
        more["antialias"] = 1
    if steps.resample == "cubic":
        more["cubic_coeff_a"] = _CUBIC
    return to.add("Resize", [pixels, "", "", sizes], "resized", **more)


def _middle(to: Pieces, pixels: str, steps: ImageSteps) -> str:
    if steps.fit == "stretch":
        return pixels
    found = to.add("Slice", [to.add("Shape", [pixels], "size.now"), *_places(to, "sides", 1, 3)], "sides.now")
    wanted = to.constant("wanted", [steps.height, steps.width])
    rest = to.add("Sub", [found, wanted], "rest")
    start = to.add("Div", [rest, to.constant("half", [2])], "start")
    end = to.add("Add", [start, wanted], "end")
    return to.add("Slice", [pixels, start, end, to.constant("sides.axes", [1, 2])], "middle")


def _places(to: Pieces, name: str, start: int, end: int) -> tuple[str, str]:
    return to.constant(f"{name}.from", [start]), to.constant(f"{name}.to", [end])


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
