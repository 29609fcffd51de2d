"""Sizes from which the shape of every array of a window follows."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeloop.insights.errors import InsightsError
from edgeloop.records import dataclass

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Far above real models, and low enough that a hostile package cannot make a window of gigabytes.
MAX_SIZES = {
    "classes": 65_536,
    "features": 65_536,
    "inputs": 64,
    "projections": 256,
    "bins": 100,
    "entropies": 1,
    "images": 3,
    "texts": 2,
}
#: These are there as a whole, or not at all.
WHOLE = ("images", "texts")


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array of a window."""

    shape: tuple[int, ...]
    dtype: Literal["int64", "float64"]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sizes:
    """What the shapes depend on.

    Attributes:
        classes: K, number of classes.
        features: F, width of the last layer's input; 0 when the model does not expose it.
        inputs: I, number of summaries of one row of the first input; 0 when it is not numeric.
        projections: P, number of fixed random projections of the features.
        bins: B, number of equal-mass bins of a histogram.
        entropies: 1 when the entropy of the probabilities is counted, else 0.
        images: 3 (brightness, contrast, sharpness) when the first input is an image, else 0.
        texts: 2 (length, share of known words) when it is a text or tokens, else 0.
    """

    classes: int
    features: int
    inputs: int
    projections: int
    bins: int = 10
    entropies: int = 0
    images: int = 0
    texts: int = 0

    @property
    def place_widths(self) -> tuple[int, ...]:
        """How many numbers can say where a row lies, the most first: projections and summaries, or one of them."""
        both = self.projections + self.inputs
        return tuple(width for width in dict.fromkeys((both, self.projections)) if width)

    def __post_init__(self) -> None:
        """Refuse sizes that no model has.

        Raises:
            InsightsError: a size is not an integer or is out of its bounds.
        """
        lowest = {"classes": 1, "bins": 2}
        for field in fields(self):
            value, least, most = getattr(self, field.name), lowest.get(field.name, 0), MAX_SIZES[field.name]
            partial = field.name in WHOLE and value not in (0, most)
            if type(value) is not int or not least <= value <= most or partial:
                raise InsightsError(
                    f"{field.name} is {value!r}; a window needs an integer from {least} to {most}"
                    f"{', and nothing between' if partial else ''}. "
                    "Build the package again from the model"
                )
