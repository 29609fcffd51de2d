"""Which labels are held out, and which answers are audited: the same on every machine and in every process."""

from __future__ import annotations

import hashlib

import numpy as np

#: One labelled prediction in four is held out. Python's own hash is salted, so that two processes would disagree.
HOLDOUT_ONE_IN = 4
_ALL = 1 << 64
#: 2^64 divided by the golden ratio, odd.
_GOLDEN = 0x9E3779B97F4A7C15


def holdout_share(prediction_id: str) -> bool:
    """Whether the label of this prediction goes to the held-out statistics.

    Args:
        prediction_id: any text; add the row's index for a row of a batch, or a whole batch shares one fate.
    """
    digest = hashlib.sha256(prediction_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % HOLDOUT_ONE_IN == 0


def drawn_rows(prediction_id: str, rows: int, share: float) -> tuple[int, ...]:
    """Which rows of a request are drawn for an audit: each with the same chance, whatever its answer.

    Other bits of the same digest than `holdout_share` looks at: what is audited is held out as often as the rest.

    Args:
        prediction_id: of the request.
        rows: of the request.
        share: of all rows that are drawn, 0…1.
    """
    last = int(share * _ALL) - 1
    if last < 0:
        return ()
    digest = hashlib.sha256(prediction_id.encode("utf-8", "surrogatepass")).digest()
    at = int.from_bytes(digest[8:16], "big")
    if rows == 1:
        return (0,) if at <= last else ()
    # Steps of the golden ratio: every row has the same chance, and a batch gets its share of draws (Weyl, 1916).
    places = np.uint64(at) + np.arange(rows, dtype=np.uint64) * np.uint64(_GOLDEN)
    return tuple(np.flatnonzero(places <= np.uint64(last)).tolist())
