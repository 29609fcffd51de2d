"""Pictures, PNG and JPEG, as tensors. Decoding is Pillow's; it is imported by the first source that needs it.

A picture comes from outside: its header is asked for its size before a pixel is decoded, only two formats are tried
whatever a file's name says, and a truncated one is no picture.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from edge_agent.flow_settings import PictureSettings
from edge_agent.flows.contents import spec_of
from edge_agent.flows.pixels import middle, tensor
from edge_agent.flows.ports import Missing, Reading, Rejected
from edge_agent.serving.calls import Described

FORMATS = ("PNG", "JPEG")
#: A PNG may hold megabytes of compressed text, and a colour profile; nothing of that is a pixel.
_MODES = {"rgb": "RGB", "bgr": "RGB", "grey": "L"}


class PictureReader:
    """Reads pictures as the settings say.

    Raises:
        Missing: Pillow is not installed.
    """

    def __init__(self, input_name: str | None, settings: PictureSettings) -> None:
        self._input, self._settings = input_name, settings
        self._pillow: Any = _pillow()

    def __call__(self, data: bytes, described: Described) -> Reading:
        """Decode, turn as the camera was held, resize, and lay out."""
        settings = self._settings
        name = spec_of(described, self._input).name
        with warnings.catch_warnings():
            # Pillow warns of a bomb at its own bound, which is not the settings'.
            warnings.simplefilter("ignore")
            try:
                pixels = self._pixels(data)
            except Rejected:
                raise
            except self._pillow.UnidentifiedImageError as error:
                raise Rejected(f"it is none of {', '.join(FORMATS)}") from error
            except Exception as error:
                # Its decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, … on damaged bytes.
                raise Rejected(f"it is no picture that can be read: {error}") from error
        return Reading({name: tensor(pixels, settings)}, declared=settings.width > 0)

    def _pixels(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        settings, image_module, ops = self._settings, self._pillow.Image, self._pillow.ImageOps
        with image_module.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > settings.max_pixels:
                raise Rejected(f"it has {width} x {height} pixels; max_pixels is {settings.max_pixels}")
            if settings.width and image.format == "JPEG":
                # Decode a large JPEG at a fraction of its size: as few pixels as the result needs, and no fewer.
                image.draft(None, (settings.width * 2, settings.height * 2))
            image.load()
            upright = ops.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits of grey, whose upper half Pillow would cut off
                upright = image_module.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8))
            mode = _MODES[settings.colours]
            converted = upright if upright.mode == mode else upright.convert(mode)
            if settings.width:
                part = converted.crop(middle(converted.width, converted.height, settings))
                converted = part.resize((settings.width, settings.height), image_module.Resampling.BILINEAR)
            pixels = np.asarray(converted, np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        return pixels[:, :, ::-1] if settings.colours == "bgr" else pixels


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise Missing("pictures need Pillow; pip install 'edgeloop[pictures]'") from error
    # The bound is the settings' own, asked before decoding; Pillow's would be another, for the whole process.
    PIL.Image.MAX_IMAGE_PIXELS = None
    return PIL
