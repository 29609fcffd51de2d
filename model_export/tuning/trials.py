"""What a search has tried: one recipe, what it is worth, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from edgeloop.runtime.comparing import Compared
from model_export.variants.recipes import VariantRecipe

Objective = Literal["latency", "size", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True)
class Trial:
    """One recipe and what it is worth.

    Attributes:
        recipe: what was made.
        accuracy: on the part of the validation set that a search chooses by; None where it was not made.
        loss: of accuracy against fp32 on the same rows.
        bound: the loss that is not exceeded, see `model_export.tuning.judging`.
        latency_ms: median of one row, in the runtime that serves; None where it was not timed.
        baseline_ms: of fp32, measured in turn with it.
        ratio: of the two: median over rounds.
        ratio_high: the upper end of its interval.
        cpu_ms: processor time of one row; ``baseline_cpu_ms`` that of fp32.
        energy_mj: energy of one row (RAPL), and ``baseline_energy_mj``; None where nobody can read it.
        energy_high: the upper end of the interval of the ratio of energy, or of processor time instead of it.
        size_bytes: graph and tensors.
        memory_bytes: by which a process grows that loads and runs it.
        seconds: that the trial took.
        front: whether no other trial within the budget is better in everything.
        why: what became of it: "" where it was in the running.
    """

    recipe: VariantRecipe
    accuracy: float | None = None
    loss: float | None = None
    bound: float | None = None
    latency_ms: float | None = None
    baseline_ms: float | None = None
    ratio: float | None = None
    ratio_high: float | None = None
    cpu_ms: float | None = None
    baseline_cpu_ms: float | None = None
    energy_mj: float | None = None
    baseline_energy_mj: float | None = None
    energy_high: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    seconds: float = 0.0
    front: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        """Of the variant that it would be."""
        return self.recipe.name

    def cost(self, objective: Objective, baseline_bytes: int) -> float:
        """What it costs as a share of what fp32 costs; infinite where it was not measured.

        Energy is what RAPL says, else processor time.
        """
        if objective == "size":
            return math.inf if self.size_bytes is None else self.size_bytes / baseline_bytes
        if objective == "energy":
            if self.energy_mj and self.baseline_energy_mj:
                return self.energy_mj / self.baseline_energy_mj
            return self.cpu_ms / self.baseline_cpu_ms if self.cpu_ms and self.baseline_cpu_ms else math.inf
        return math.inf if self.ratio is None else self.ratio

    def surely_less(self, objective: Objective) -> bool:
        """Whether it costs less than fp32 by the upper end of what was seen, as clocks are noisy; bytes are not."""
        high = {"size": 0.0, "latency": self.ratio_high, "energy": self.energy_high}[objective]
        return high is not None and high < 1

    def timed(self, base: Compared, mine: Compared) -> Trial:
        """The trial with what was measured of it beside fp32; out of the running where one of the two failed."""
        first, second = base.timing, mine.timing
        if first is None or second is None:
            return replace(self, why=mine.reason or base.reason)
        return replace(
            self,
            latency_ms=second.median_ms,
            baseline_ms=first.median_ms,
            ratio=second.ratio,
            ratio_high=second.high,
            cpu_ms=second.cpu_ms,
            baseline_cpu_ms=first.cpu_ms,
            energy_mj=second.energy_mj,
            baseline_energy_mj=first.energy_mj,
            energy_high=second.energy_high,
            memory_bytes=mine.memory_bytes,
        )

    def to_json(self) -> dict[str, Any]:
        """For the tuning file, with the recipe in words."""
        told = {name: value for name, value in asdict(self).items() if name != "recipe"}
        return {"name": self.name, "recipe": self.recipe.to_json(), "description": self.recipe.describe(), **told}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Trial:
        """What `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        own = {name: value for name, value in told.items() if name not in ("name", "recipe", "description")}
        return cls(recipe=VariantRecipe.from_json(told["recipe"]), **own)


def with_front(trials: Sequence[Trial], objective: Objective, baseline: Trial) -> list[Trial]:
    """The trials, with those marked that no other one within the budget beats in cost, size and accuracy alike."""
    size = baseline.size_bytes or 1
    able = [trial for trial in (baseline, *trials) if not trial.why and trial.accuracy is not None]

    def worth(trial: Trial) -> tuple[float, float, float]:
        main: Objective = "latency" if objective == "size" else objective
        cost = 1.0 if trial is baseline else trial.cost(main, size)
        return cost, trial.cost("size", size), -(trial.accuracy or 0.0)

    def beaten(mine: tuple[float, float, float]) -> bool:
        return any(all(a <= b for a, b in zip(worth(o), mine, strict=True)) and worth(o) != mine for o in able)

    return [replace(trial, front=trial in able and not beaten(worth(trial))) for trial in trials]
