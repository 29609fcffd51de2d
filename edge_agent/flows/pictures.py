"""Pictures, PNG and JPEG, as tensors, as a source's settings say."""

from __future__ import annotations

import numpy as np

from edge_agent.flow_settings import PictureSettings
from edge_agent.flows.contents import spec_of
from edge_agent.flows.pixels import fit_of, tensor
from edge_agent.flows.ports import Missing, Reading, Rejected
from edge_agent.serving.calls import Described
from edgeloop.pictures import INSTALL, NoPicture, decoded


class PictureReader:
    """Reads pictures as the settings say.

    Raises:
        Missing: Pillow is not installed.
    """

    def __init__(self, input_name: str | None, settings: PictureSettings) -> None:
        self._input, self._settings = input_name, settings
        _load_pillow()

    def __call__(self, data: bytes, described: Described) -> Reading:
        """Decode, turn as the camera was held, resize, and lay out."""
        settings = self._settings
        name = spec_of(described, self._input).name
        try:
            pixels = decoded(
                data, max_pixels=settings.max_pixels, fit=fit_of(settings), grey=settings.colours == "grey"
            )
        except NoPicture as error:
            raise Rejected(str(error)) from error
        if settings.colours == "bgr":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        return Reading({name: tensor(pixels, settings)}, declared=settings.width > 0)


def _load_pillow() -> None:
    try:
        import PIL.Image
    except ImportError as error:
        raise Missing(f"pictures need Pillow; {INSTALL}") from error
    # The bound is the settings' own, asked before decoding; Pillow's would be another, for the whole process.
    PIL.Image.MAX_IMAGE_PIXELS = None
