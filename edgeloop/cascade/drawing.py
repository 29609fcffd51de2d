"""Drawing: with what chance a row is escalated, and whether it is. The same on every machine and in every process."""

from __future__ import annotations

import hashlib

import numpy as np

from edgeloop.cascade.hardness import from_log_odds
from edgeloop.insights.sizes import Floats

#: 2^64 divided by the golden ratio, odd.
_GOLDEN = 0x9E3779B97F4A7C15


def chances(odds: Floats, threshold: float, softness: float, floor: float) -> Floats:
    """Chance of each row to be escalated: ``floor``, and a step of the logistic curve above it.

    Args:
        odds: log odds of the hardness, float64 [n].
        threshold: log odds of the hardness in the middle of the step.
        softness: width of the step, in hardness, at a hardness of one half. In log odds it is as wide everywhere, so
            that it is narrower in hardness where hardness comes near 0 or 1: there are most rows.
        floor: least chance, 0…1.

    Returns:
        float64 [n] in ``floor``…1.
    """
    return np.asarray(floor + (1 - floor) * from_log_odds((odds - threshold) / (4 * softness)))


def places(prediction_id: str, rows: int) -> Floats:
    """A number in 0…1 for each row of a request, as if it had been thrown; a row is drawn where its chance is larger.

    Other bits of the same SHA-256 than `edgeloop.insights.shares` looks at: what is escalated is held out, and audited,
    as often as the rest.

    Args:
        prediction_id: of the request.
        rows: of the request.

    Returns:
        float64 [rows].
    """
    digest = hashlib.sha256(prediction_id.encode("utf-8", "surrogatepass")).digest()
    at = int.from_bytes(digest[16:24], "big")
    # Steps of the golden ratio: each row is thrown evenly, and a batch gets its share of draws (Weyl, 1916).
    thrown = np.uint64(at) + np.arange(rows, dtype=np.uint64) * np.uint64(_GOLDEN)
    return np.asarray((thrown >> np.uint64(11)).astype(np.float64) * 2.0**-53)
