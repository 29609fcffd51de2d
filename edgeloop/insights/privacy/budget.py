"""How much noise a window needs, and how many windows a period has room for: by dp-accounting, in a process of its own.

``python -m edgeloop.insights.privacy.budget`` reads one question (JSON) from standard input and writes one answer. The
library, with SciPy below it, takes some 60 MB and a second; the agent needs it once for each policy and keeps a number.

A window is one Gaussian mechanism of sensitivity 1 (`edgeloop.insights.privacy.mechanism` scales it so), so n of them
under one multiplier z are one with z / √n; what was spent under other multipliers before is composed with it by the
accountant of privacy loss distributions (Koskela et al. 2020).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from edgeloop.records import dataclass

INSTALL = "pip install 'edgeloop[agent,privacy]'"
#: Grid of the accountant's losses. It rounds them up, so that it finds a little more than the closed formula.
GRID = 1e-3
#: Room for that.
MARGIN = 1.005


@dataclass(frozen=True)
class Plan:
    """What a device may do in this period.

    Attributes:
        multiplier: z, the noise's standard deviation over the sensitivity.
        left: windows that this period still has room for under it.
    """

    multiplier: float
    left: int


def work_out(epsilon: float, delta: float, windows: int, spent: Mapping[float, int]) -> Plan:
    """The plan of a policy.

    Args:
        epsilon: of a period, > 0.
        delta: of a period, 0 < delta < 1.
        windows: that a period is to have room for.
        spent: multiplier → windows that were noised under it in this period.

    Raises:
        ImportError: dp-accounting is not installed: `INSTALL`.
    """
    from dp_accounting import get_sigma_gaussian

    multiplier = math.sqrt(windows) * get_sigma_gaussian(epsilon, delta) * MARGIN

    def fits(count: int) -> bool:
        return epsilon_of(delta, {**spent, multiplier: spent.get(multiplier, 0) + count}) <= epsilon

    most = max(windows - sum(spent.values()), 0)
    if fits(most):
        return Plan(multiplier, most)
    least = 0  # fewer: something was spent under another policy
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return Plan(multiplier, least)


def epsilon_of(delta: float, spent: Mapping[float, int]) -> float:
    """What was spent, as an epsilon at this delta."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=GRID)
    for multiplier, count in ((z, n) for z, n in spent.items() if n):
        accountant.compose(GaussianDpEvent(multiplier), count)
    return float(accountant.get_epsilon(delta))


def main() -> None:
    """Answer one question."""
    question: dict[str, Any] = json.load(sys.stdin)
    spent = {float(multiplier): int(count) for multiplier, count in question.pop("spent")}
    found = work_out(**question, spent=spent)
    print(json.dumps({"multiplier": found.multiplier, "left": found.left}))


if __name__ == "__main__":
    main()
