"""The sums of a window by name. What nothing was added to is zero, and takes neither room nor time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.insights.sizes import Array

if TYPE_CHECKING:
    from edgeloop.insights.schema import WindowSchema


class Sums(dict[str, Array]):
    """Name → array, as the schema says. An array that is not there is zero; asking for it by ``[name]`` makes it.

    So a loop over ``items()`` sees only what was asked for or counted, in no certain order; a loop over
    ``schema.arrays`` sees all names, in their order. Most windows have counted a third of their arrays: adding,
    copying, decoding and storing them leaves the others out.
    """

    __slots__ = ("schema",)

    def __init__(self, schema: WindowSchema) -> None:
        super().__init__()
        self.schema = schema

    def __missing__(self, name: str) -> Array:
        """The zeros of an array that nothing was added to.

        Raises:
            KeyError: the schema has no such array.
        """
        spec = self.schema.arrays[name]
        zeros: Array = np.zeros(spec.shape, spec.dtype)
        self[name] = zeros
        return zeros

    def copy(self) -> Sums:
        """An independent copy."""
        copy = Sums(self.schema)
        for name, array in self.items():
            copy[name] = array.copy()
        return copy
