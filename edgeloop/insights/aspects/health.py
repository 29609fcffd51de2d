"""How the device was while it served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeloop.insights.aspects.base import Arrays, Aspect
from edgeloop.insights.sizes import ArraySpec, Sizes

#: What is measured: resident memory in bytes, processor use as a share of one core, temperature in °C.
NAMES = ("rss_bytes", "cpu_share", "temperature_c")
#: No device has more memory, cores or heat than this.
LIMITS = np.array([1e15, 1e5, 1e4])


class Health(Aspect):
    """``health_samples`` int64 [3] and ``health_sum`` float64 [3], in the order of `NAMES`.

    Every measure has its own count, since many devices have no thermometer.
    """

    name = "health"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        return {
            "health_samples": ArraySpec((len(NAMES),), "int64"),
            "health_sum": ArraySpec((len(NAMES),), "float64"),
        }

    def broken(self, arrays: Arrays) -> Iterable[tuple[Any, str]]:
        """See :class:`Aspect`."""
        beyond = np.abs(arrays["health_sum"]) > arrays["health_samples"] * LIMITS
        yield beyond, "the device's health is beyond what a device can have"


def add_health(into: Arrays, rss_bytes: float | None, cpu_share: float | None, temperature_c: float | None) -> None:
    """Add one sample of the device's health; a measure that is None, not finite or absurd is left out."""
    for place, value in enumerate((rss_bytes, cpu_share, temperature_c)):
        if value is not None and abs(value) <= LIMITS[place]:  # False for NaN
            into["health_samples"][place] += 1
            into["health_sum"][place] += value
