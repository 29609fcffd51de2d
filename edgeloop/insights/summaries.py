"""Few numbers that say what a row of the input, or of the features, is like; the same on every machine."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.sizes import Array, Floats

#: A row with at most this many numeric columns is a table row: the columns themselves are its summaries.
MAX_COLUMNS = 16
#: Summaries of a longer row: its mean, its standard deviation and six sign projections.
SUMMARIES = 8
#: Coordinates that one sign projection of the input adds up: enough to see light, contrast and movement, few enough
#: that an image of 150,528 numbers costs no more than a digit.
COORDINATES = 256

_INPUT_STREAM, _FEATURE_STREAM = 1, 2


def input_summaries(width: int) -> int:
    """Number of summaries, I, of a row with ``width`` numbers."""
    return width if width <= MAX_COLUMNS else SUMMARIES


def input_names(width: int) -> tuple[str, ...]:
    """What each summary is called, in order."""
    if width <= MAX_COLUMNS:
        return tuple(f"input column {i}" for i in range(width))
    return ("input mean", "input spread", *(f"input projection {i}" for i in range(SUMMARIES - 2)))


def row_width(inputs: Array) -> int:
    """Numbers in one row of [N, …]; also of an empty batch, whose -1 no reshape can resolve."""
    return math.prod(inputs.shape[1:])


def is_numeric(inputs: Array) -> bool:
    """Whether rows of this dtype can be summarised."""
    return inputs.dtype.kind in "fiub"


def flatten(inputs: Array) -> Array:
    """Rows [N, …] as [N, D]."""
    return inputs.reshape(len(inputs), row_width(inputs))


def summarise(rows: Array, seed: int) -> Floats:
    """Summaries of rows.

    Args:
        rows: numeric [N, D].
        seed: the profile's.

    Returns:
        float64 [I, N].
    """
    width = rows.shape[1]
    if width <= MAX_COLUMNS:
        return np.ascontiguousarray(rows.T, dtype=np.float64)
    out = np.empty((SUMMARIES, len(rows)))
    positions, signs = input_signs(width, seed)
    exact = rows.astype(np.float64, copy=False)
    chosen = exact if positions is None else exact[:, positions]
    np.mean(exact, axis=1, out=out[0])
    # Var = E[x²] − E[x]² loses digits only where the spread is 1e-8 of the mean, which no bin can tell from zero.
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite are found and left out afterwards
        squares = np.einsum("nd,nd->n", exact, exact) / width
        np.sqrt(np.maximum(squares - out[0] * out[0], 0.0), out=out[1])
        np.matmul(signs, chosen.T, out=out[2:])
    return out


@lru_cache(maxsize=32)
def input_signs(width: int, seed: int) -> tuple[Array | None, Floats]:
    """Positions and signs of the sparse projections of an input of ``width`` numbers.

    Returns:
        Positions int64 [U] (None: all of them, in order) and signs float64 [SUMMARIES-2, U], scaled to unit length.
    """
    count = SUMMARIES - 2
    if width <= COORDINATES:
        return None, _signs(_raw(seed, _INPUT_STREAM, width, count * width)).reshape(count, width) / np.sqrt(width)
    raw = _raw(seed, _INPUT_STREAM, width, 2 * count * COORDINATES).reshape(2, count, COORDINATES)
    drawn = (raw[0] % np.uint64(width)).astype(np.int64)
    positions = np.unique(drawn)
    signs = np.zeros((count, len(positions)))
    for row, places, sign in zip(signs, drawn, _signs(raw[1]), strict=True):
        np.add.at(row, np.searchsorted(positions, places), sign)  # a position may be drawn twice
    return positions, signs / np.sqrt(COORDINATES)


@lru_cache(maxsize=32)
def feature_signs(features: int, projections: int, seed: int) -> Floats:
    """Signs of the projections of the features: float64 [P, F], scaled to unit length."""
    raw = _raw(seed, _FEATURE_STREAM, features, projections * features)
    return np.asarray(_signs(raw).reshape(projections, features) / np.sqrt(max(features, 1)))


def _signs(raw: Array) -> Floats:
    """±1 from the top bit of each raw number, which is PCG64's best."""
    return np.where(raw >> np.uint64(63), 1.0, -1.0)


def _raw(seed: int, stream: int, width: int, count: int) -> Array:
    """Raw numbers: NumPy promises that PCG64's raw stream never changes, unlike that of its distributions."""
    if not 0 <= seed < 1 << 63:
        raise InsightsError(f"the seed is {seed}; it has to be from 0 to 2^63-1. Build the package again")
    return np.asarray(np.random.PCG64(np.random.SeedSequence((seed, stream, width))).random_raw(count))
