"""The histograms of a window: the aspects in equal-mass bins, which drift compares and a device may coarsen."""

from __future__ import annotations

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.histogram import COARSEST, Histogram
from edgeloop.insights.errors import InsightsError

#: In the order in which their arrays stand in a window.
HISTOGRAMS: tuple[Histogram, ...] = tuple(aspect for aspect in ASPECTS if isinstance(aspect, Histogram))
#: All arrays of all of them, by level.
HISTOGRAM_ARRAYS = tuple(name for histogram in HISTOGRAMS for name in histogram.names)
_BY_NAME = {histogram.name: histogram for histogram in HISTOGRAMS}

__all__ = ["COARSEST", "HISTOGRAMS", "HISTOGRAM_ARRAYS", "Histogram", "histogram"]


def histogram(name: str) -> Histogram:
    """The histogram of a name.

    Raises:
        InsightsError: there is none.
    """
    if (found := _BY_NAME.get(name)) is None:
        raise InsightsError(f"{name!r:.80} is no histogram; there are {', '.join(_BY_NAME)}")
    return found
