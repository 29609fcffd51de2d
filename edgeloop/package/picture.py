"""What the manifest says of the pictures that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from edgeloop.package.errors import PackageError
from edgeloop.records import dataclass

Fit = Literal["crop", "stretch"]
Resample = Literal["nearest", "linear", "cubic"]
FITS, RESAMPLING = get_args(Fit), get_args(Resample)
#: Pixels of a side, at most.
LARGEST_SIDE = 1 << 13


@dataclass(frozen=True)
class PictureSpec:
    """How a picture is made small for the model's only input, UINT8 [N, H, W, 3] in RGB, by whoever decodes it.

    The model itself takes other sizes too, where its input's shape says so. But profile and validation set were made
    of pictures that were made small like this, and nobody wants to keep or to send more of one.

    Attributes:
        height: pixels.
        width: pixels.
        fit: ``crop``: the largest middle of this aspect ratio is resized; ``stretch``: the whole is.
        resample: what stands between pixels.
    """

    height: int
    width: int
    fit: Fit = "crop"
    resample: Resample = "linear"

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        return {"height": self.height, "width": self.width, "fit": self.fit, "resample": self.resample}


def read_picture(told: Mapping[str, Any]) -> PictureSpec:
    """What a manifest says.

    Raises:
        PackageError: it cannot be followed.
    """
    height, width, fit, resample = (told.get(name) for name in ("height", "width", "fit", "resample"))
    if not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in (height, width)):
        raise PackageError(f"a picture has {height!r:.20} x {width!r:.20} pixels; a side has 1 to {LARGEST_SIDE}")
    if fit not in FITS or resample not in RESAMPLING:
        raise PackageError(f"a picture's fit is one of {', '.join(FITS)}, its resample one of {', '.join(RESAMPLING)}")
    return PictureSpec(height, width, fit, resample)  # type: ignore[arg-type]  # the lines above have looked
