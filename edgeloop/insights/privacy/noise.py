"""Gaussian noise that nobody can foresee, and that hides in no last bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np

from edgeloop.insights.sizes import Floats

#: ``noise(n)``: n independent standard normal numbers, float64 [n].
Noise = Callable[[int], Floats]
#: Sums with noise are rounded to multiples of this share of its standard deviation, a power of two. The low bits of a
#: float64 that was noised betray what it was before (Mironov 2012); a grid that all of them share has none.
GRID = 2.0**-10


def system_noise(count: int) -> Floats:
    """Standard normal numbers from the operating system's randomness, by the polar formula of Box and Muller (1958).

    A generator with a state would do for statistics; from a few of its numbers the next can be computed.
    """
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), dtype="<u8").reshape(2, pairs)
    # 53 bits each: in (0, 1], so that the logarithm is finite, and in [0, 1).
    radius = np.sqrt(-2.0 * np.log(((words[0] >> 11) + 1) * 2.0**-53))
    angle = (words[1] >> 11) * (2.0**-53 * 2.0 * math.pi)
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def noised(values: Floats, deviation: float, noise: Noise) -> Floats:
    """Values [...] with noise of this standard deviation, on a grid.

    Args:
        values: float64 or counts.
        deviation: > 0.
        noise: where it comes from.
    """
    step = 2.0 ** math.floor(math.log2(deviation * GRID))
    exact = np.asarray(values, np.float64)
    return np.asarray(np.round((exact + deviation * noise(exact.size).reshape(exact.shape)) / step) * step)
