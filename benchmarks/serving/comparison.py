"""Turns and what they show: every target is asked for a moment, then the next, so that each meets the same machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.kit.load import Load, LoadError
from benchmarks.kit.processes import StartError
from benchmarks.serving.targets import Target

#: One round: the load of each target that went through it.
Round = dict[str, Load]


@dataclass
class Comparison:
    """Rounds of one kind of load."""

    rounds: list[Round] = field(default_factory=list)

    def names(self) -> list[str]:
        """Targets that went through at least one round."""
        return list(dict.fromkeys(name for found in self.rounds for name in found))

    def median(self, name: str, key: str) -> float:
        """Of a target's figure over the rounds; NaN, which no bound holds for, when it went through none."""
        return _median([getattr(found[name], key) for found in self.rounds if name in found])

    def ratio(self, one: str, other: str, key: str = "per_second") -> float:
        """Median over the rounds of one target's figure as a multiple of another's."""
        both = [found for found in self.rounds if one in found and other in found]
        return _median([getattr(found[one], key) / getattr(found[other], key) for found in both])


def take_turns(
    targets: Sequence[Target], load: Callable[[Target], Load], rounds: int, failures: dict[str, str]
) -> Comparison:
    """Ask each target in each round, in an order that moves on.

    Args:
        targets: who.
        load: asks one of them.
        rounds: how often.
        failures: name → what a target died of; it is left out from then on, and those in it already are left out.
    """
    comparison = Comparison()
    for number in range(rounds):
        shift, found = number % len(targets), Round()
        for target in [*targets[shift:], *targets[:shift]]:
            if target.name in failures:
                continue
            try:
                found[target.name] = load(target)
            except (LoadError, StartError, OSError) as error:
                failures[target.name] = " ".join(str(error).split())[:300]
        comparison.rounds.append(found)
    return comparison


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan
