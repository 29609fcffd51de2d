"""Which labelled predictions are held out: the same answer on every machine and in every process."""

from __future__ import annotations

import hashlib

#: One labelled prediction in four is held out. Python's own hash is salted, so that two processes would disagree.
HOLDOUT_ONE_IN = 4


def holdout_share(prediction_id: str) -> bool:
    """Whether the label of this prediction goes to the held-out statistics.

    Args:
        prediction_id: any text; add the row's index for a row of a batch, or a whole batch shares one fate.
    """
    digest = hashlib.sha256(prediction_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % HOLDOUT_ONE_IN == 0
