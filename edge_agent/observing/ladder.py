"""What a window gives up when there is no room for it, in this order. Counts and classes it never gives up. Pure.

The order, as `docs/reference/windows.md` has it:

1. neighbouring windows of one release and segment become one (the outbox does that: it takes two windows);
2. bins: two, then four, then eight neighbours become one;
3. segments are added together;
4. aspects, one after the other; head statistics last, since nothing else can teach a new head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from edgeloop.insights import Window, WindowSchema, coarsen
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.histograms import COARSEST, HISTOGRAMS
from edgeloop.insights.policy import ALWAYS
from edgeloop.records import dataclass

#: Aspects in the order in which they go. One that is not named here goes before the first.
DROPPED = (
    "health",
    "moments",
    "texts",
    "images",
    "inputs",
    "entropy",
    "projections",
    "latency",
    "confidence",
    "expected",
    "confusion",
    "audits",
    "head",
)


@dataclass(frozen=True)
class Rung:
    """One thing that is given up.

    Attributes:
        name: for people.
        apply: what it makes of a window.
    """

    name: str
    apply: Callable[[Window], Window]


def dropped_in_order() -> tuple[str, ...]:
    """Names of all aspects that can go, the first to go first."""
    known = [aspect.name for aspect in ASPECTS if aspect.name not in ALWAYS]
    return tuple([name for name in known if name not in DROPPED] + [name for name in DROPPED if name in known])


def keep(window: Window, wanted: Callable[[str], bool]) -> Window:
    """The window with the aspects that are wanted, and counts and classes."""
    names = _arrays_of(window.schema)
    return window.only([array for array, aspect in names if aspect in ALWAYS or wanted(aspect)])


@lru_cache(maxsize=64)
def _arrays_of(schema: WindowSchema) -> Sequence[tuple[str, str]]:
    return [(array, aspect.name) for aspect in ASPECTS for array in aspect.arrays(schema)]


def _coarser(level: int) -> Rung:
    levels = {histogram.name: level for histogram in HISTOGRAMS}
    return Rung(f"{2**level} bins as one", lambda window: coarsen(window, levels))


def _without(name: str) -> Rung:
    return Rung(f"without {name}", lambda window: keep(window, lambda aspect: aspect != name))


#: Rung n takes a window from level n to level n + 1.
RUNGS: tuple[Rung, ...] = (
    *(_coarser(level) for level in range(1, COARSEST + 1)),
    Rung("segments as one", lambda window: window.without_segment()),
    *(_without(name) for name in dropped_in_order()),
)
#: Of a window that has nothing left to give up.
TOP = len(RUNGS)


def name_of(level: int) -> str:
    """What a window of a level has given up last; "" for nothing."""
    return RUNGS[level - 1].name if level else ""
