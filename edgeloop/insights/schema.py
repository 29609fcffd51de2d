"""The schema of a window: which arrays it has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect
from edgeloop.insights.sizes import ArraySpec, Sizes
from edgeloop.records import dataclass


@dataclass(frozen=True)
class WindowSchema(Sizes):
    """Shape of the windows of one release; see :class:`Sizes` for the attributes."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Names, shapes and dtypes of the arrays, in a fixed order."""
        return _arrays(self)

    def __hash__(self) -> int:
        """As the fields say, without asking which there are: this is asked several times for each window."""
        numbers = (self.classes, self.features, self.inputs, self.projections, self.bins)
        return hash((numbers, self.entropies, self.images, self.texts))


@lru_cache(maxsize=256)
def _arrays(schema: WindowSchema) -> Mapping[str, ArraySpec]:
    return MappingProxyType({name: spec for aspect in ASPECTS for name, spec in aspect.arrays(schema).items()})


@lru_cache(maxsize=256)
def owners(schema: WindowSchema) -> Mapping[str, Aspect]:
    """Name of an array → the aspect that it belongs to."""
    return MappingProxyType({name: aspect for aspect in ASPECTS for name in aspect.arrays(schema)})
