"""Whether a variant loses more accuracy than it may, on rows that nobody has seen.

Two things make a lucky trial look good: few rows, and many trials. So the validation set is cut in two. A search
chooses by the first half, and what it has chosen has to pass on the second half, which it never saw. And on each half
the loss itself is not compared with the budget, but its upper bound: paired with fp32 row by row, since both are right
or wrong on mostly the same rows, which makes the bound far tighter than that of two accuracies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_export.data import split
from model_export.graphs.graph import Array

#: One-sided, on each half. A variant whose loss is exactly the budget passes both with a chance of 0.2 · 0.2 = 4 %.
CONFIDENCE, Z = 0.8, 0.8416
#: For giving up on a trial that has shown a part of its rows: 97.5 %, since it is looked at again and again.
Z_HOPELESS = 1.96


@dataclass(frozen=True)
class Loss:
    """Accuracy lost against fp32.

    Attributes:
        value: on these rows.
        bound: upper bound at `CONFIDENCE`.
        least: lower bound, at which a trial is given up.
        rows: on which it was found.
    """

    value: float
    bound: float
    least: float
    rows: int


def loss_of(right_before: npt.NDArray[np.bool_], right_now: npt.NDArray[np.bool_]) -> Loss:
    """The loss of accuracy, with bounds for paired proportions (Bonett and Price 2012, doi:10.3102/1076998611411915).

    Args:
        right_before: whether fp32 was right, [N].
        right_now: whether the variant is, [N].
    """
    rows = len(right_before)
    lost = int((right_before & ~right_now).sum())
    won = int((~right_before & right_now).sum())
    a, b = (lost + 1) / (rows + 2), (won + 1) / (rows + 2)
    spread = math.sqrt(max(a + b - (a - b) ** 2, 0.0) / (rows + 2))
    return Loss((lost - won) / rows, a - b + Z * spread, a - b - Z_HOPELESS * spread, rows)


def rows_needed(accuracy_drop: float) -> int:
    """Validation rows with which a variant that changes no answer is proven to be within a budget."""
    return 2 * math.ceil(Z * math.sqrt(2) / accuracy_drop - 2)


def halves(validation: Array, truth: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Rows to choose by and rows to confirm by, each class in both; no random number is drawn.

    Args:
        validation: row numbers of the validation set.
        truth: the classes of these rows.
    """
    choosing, confirming = split(truth, 0.5)
    return validation[choosing], validation[confirming]
