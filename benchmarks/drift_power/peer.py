"""Evidently, given every row: run by the Python of an environment of its own, which has nothing of edgeloop.

Reads an ``.npz`` with ``normal`` [T, M, C], ``seen`` [T, N, C] (the last column is a class), writes the least p-value
of each trial. The tests are the ones that Evidently's data drift preset takes for tables of this size, called without
the report around them, which takes seconds a window and says the same.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import chi_stat_test, ks_stat_test


def least_p(normal: np.ndarray, seen: np.ndarray) -> float:
    found = [1.0]
    for column in range(normal.shape[1]):
        a, b = pd.Series(normal[:, column]), pd.Series(seen[:, column])
        if column == normal.shape[1] - 1:
            p = chi_stat_test.func(a.astype(int).astype(str), b.astype(int).astype(str), "cat", 0.05)[0]
        elif a.min() == a.max() == b.min() == b.max():
            continue
        else:
            p = ks_stat_test.func(a, b, "num", 0.05)[0]
        found.append(float(p))
    return min(found)


def main() -> None:
    warnings.simplefilter("ignore")
    with np.load(sys.argv[1]) as given:
        p = [least_p(normal, seen) for normal, seen in zip(given["normal"], given["seen"], strict=True)]
    np.save(sys.argv[2], np.array(p))


if __name__ == "__main__":
    main()
