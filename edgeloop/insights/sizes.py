"""Sizes from which the shape of every array of a window follows."""

from __future__ import annotations

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
MAX_SIZES = {"classes": 65_536, "features": 65_536, "inputs": 64, "projections": 256, "bins": 100}


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array of a window."""

    shape: tuple[int, ...]
    dtype: Literal["int64", "float64"]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Sizes:
    """What the shapes depend on.

    Attributes:
        classes: K, number of classes.
        features: F, width of the last layer's input; 0 when the model does not expose it.
        inputs: I, number of summaries of one row of the first input; 0 when it is not numeric.
        projections: P, number of fixed random projections of the features.
        bins: B, number of equal-mass bins of a histogram.
    """

    classes: int
    features: int
    inputs: int
    projections: int
    bins: int = 10

    def __post_init__(self) -> None:
        """Refuse sizes that no model has.

        Raises:
            InsightsError: a size is not an integer or is out of its bounds.
        """
        lowest = {"classes": 1, "bins": 2}
        for field in fields(self):
            value, least, most = getattr(self, field.name), lowest.get(field.name, 0), MAX_SIZES[field.name]
            if type(value) is not int or not least <= value <= most:
                raise InsightsError(
                    f"{field.name} is {value!r}; a window needs an integer from {least} to {most}. "
                    "Build the package again from the model"
                )
