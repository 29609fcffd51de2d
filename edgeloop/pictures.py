"""Pictures, PNG and JPEG, as pixels. Decoding is Pillow's, which is imported when the first one is decoded.

A picture comes from outside: its header is asked for its size before a pixel is decoded, only two formats are tried
whatever it is called, and a truncated one is no picture.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG")
#: What brings Pillow.
INSTALL = "pip install 'edgeloop[pictures]'"
_RESAMPLING = {"nearest": "NEAREST", "linear": "BILINEAR", "cubic": "BICUBIC"}


class NoPicture(ValueError):
    """The bytes are no picture that can be read, or it is larger than it may be; the message says which."""


class Fit(NamedTuple):
    """The size that a picture is brought to.

    Attributes:
        width: pixels.
        height: pixels.
        crop: of another aspect ratio the largest middle is taken; else it is stretched.
        resample: ``nearest``, ``linear`` or ``cubic``; the last two look at all pixels when they make one of several.
    """

    width: int
    height: int
    crop: bool = True
    resample: str = "linear"


def pillow_is_here() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


def decoded(data: bytes, *, max_pixels: int, fit: Fit | None = None, grey: bool = False) -> Pixels:
    """The pixels of a picture, upright as the camera was held.

    Args:
        data: a PNG's or JPEG's bytes.
        max_pixels: of a picture; one whose header says more is not decoded.
        fit: the size that is wanted; None: as it comes.
        grey: whether brightness alone is wanted.

    Returns:
        [H, W, 3] in RGB, or [H, W, 1].

    Raises:
        NoPicture: see there.
        ImportError: Pillow is not installed.
    """
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        # Pillow warns of a bomb at its own bound, which is not the caller's.
        warnings.simplefilter("ignore")
        try:
            pixels = _pixels(data, max_pixels, fit, "L" if grey else "RGB")
        except NoPicture:
            raise
        except UnidentifiedImageError as error:
            raise NoPicture(f"it is none of {', '.join(FORMATS)}") from error
        except Image.DecompressionBombError as error:
            raise NoPicture(f"it has more pixels than max_pixels, {max_pixels}") from error
        except Exception as error:
            # Its decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, … on damaged bytes.
            raise NoPicture(f"it is no picture that can be read: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _pixels(data: bytes, max_pixels: int, fit: Fit | None, mode: str) -> Pixels:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise NoPicture(f"it has {width} x {height} pixels; max_pixels is {max_pixels}")
        if fit is not None and image.format == "JPEG":
            # Decode a large JPEG at a fraction of its size: as few pixels as the result needs, and no fewer.
            image.draft(None, (fit.width * 2, fit.height * 2))
        image.load()
        upright: Any = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, whose upper half Pillow would cut off
            upright = Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8))
        converted = upright if upright.mode == mode else upright.convert(mode)
        if fit is not None and converted.size != (fit.width, fit.height):
            part = converted.crop(middle(converted.width, converted.height, fit))
            converted = part.resize((fit.width, fit.height), Image.Resampling[_RESAMPLING[fit.resample]])
        return np.asarray(converted, np.uint8)


def middle(width: int, height: int, fit: Fit) -> tuple[int, int, int, int]:
    """What of a picture is resized: left, top, right and bottom, pixels; the largest middle of the wanted aspect ratio.

    Args:
        width: the picture's.
        height: the picture's.
        fit: the wanted size, and whether other aspect ratios are cropped at all.
    """
    if not fit.crop:
        return 0, 0, width, height
    part_width = min(width, max(1, round(height * fit.width / fit.height)))
    part_height = min(height, max(1, round(width * fit.height / fit.width)))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height
