"""Ten worlds that cameras come into one after another, and what is asked of a fleet that nobody attends to.

The accuracy after each recovery is never more than 0.05 below the one after the first. The worlds differ as much as
worlds that one backbone can be right in do: a head that is made of all their labels is right in 84 to 93 % of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.digits.data import CLEAN, FIRST_SLIP, SECOND_SLIP, Slip

WORLDS = (
    FIRST_SLIP,
    SECOND_SLIP,
    Slip("dimmed", degrees=-15.0, light=0.4, noise=0.06),
    Slip("fog", degrees=10.0, light=0.5, offset=0.5, noise=0.05),
    Slip("night", degrees=-30.0, light=0.5, noise=0.05),
    CLEAN,
    Slip("bright", degrees=-12.0, light=0.8, offset=0.3, noise=0.1),
    Slip("tilted", degrees=32.0, light=0.8, offset=0.05, noise=0.05),
    SECOND_SLIP,
    FIRST_SLIP,
)
#: How far a recovery may stay behind the first.
MOST_BEHIND = 0.05


@dataclass(frozen=True)
class Round:
    """What became of one world: accuracies when it came, when it was recovered, and then on the first day's digits."""

    world: str
    drifted: float
    recovered: float
    first_day: float


def table(rounds: list[Round]) -> str:
    """The rounds, for people."""
    lines = [f"{'world':>10}  drifted  recovered  first day's digits"]
    lines += [f"{one.world:>10}  {one.drifted:7.3f}  {one.recovered:9.3f}  {one.first_day:18.3f}" for one in rounds]
    return "\n".join(lines)


def check(rounds: list[Round]) -> None:
    """Every world was recovered from, and none much worse than the first."""
    assert len(rounds) == len(WORLDS)
    behind = {one.world: rounds[0].recovered - one.recovered for one in rounds}
    assert max(behind.values()) <= MOST_BEHIND, behind
    assert all(one.recovered > one.drifted for one in rounds), rounds
