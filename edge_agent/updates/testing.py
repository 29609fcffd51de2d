"""Testing: a release is loaded beside the one that serves, and has to prove itself on this very device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge_agent.ports import LoadedRelease
from edge_agent.updates.errors import Refused
from edge_agent.updates.store import Installed
from edgeloop.insights import InsightsError
from edgeloop.package import Index, Package, PackageError
from edgeloop.runtime import ModelLoadError, Policy, Trial, choose


@dataclass(frozen=True)
class TestingRules:
    """What a release must show before it serves.

    Attributes:
        policy: how much of the machine a run may take.
        required_providers: of which one has to be used; empty: any.
        allow_cpu_fallback: whether nodes may run on the CPU that the chosen provider does not support.
        max_latency_ms: for one row; 0: any.
        max_memory_bytes: of the whole agent with the release loaded; 0: any.
        time_budget_s: for timing candidates.
    """

    policy: Policy = "balanced"
    required_providers: Sequence[str] = ()
    allow_cpu_fallback: bool = False
    max_latency_ms: float = 0.0
    max_memory_bytes: int = 0
    time_budget_s: float = 2.0


@dataclass(frozen=True, eq=False)
class Tested:
    """A release that passed, and the table of all candidates that were tried."""

    loaded: LoadedRelease
    table: tuple[Trial, ...]


def load_tested(folder: Path, index: Index, rules: TestingRules, *, variants: Sequence[str] | None = None) -> Tested:
    """Load a release, check its golden cases on the provider that really runs, and hold it to the budgets.

    Args:
        folder: of the release; it holds the files of some variants.
        index: of the release.
        rules: what it must show.
        variants: names of the variants that may run; None: those that are here.

    Raises:
        Refused: with the reason.
    """
    try:
        package = Package.open(folder, index=index)
        profile = package.profile()
        choice = choose(
            package,
            required=rules.required_providers,
            variants=variants,
            policy=rules.policy,
            time_budget_s=rules.time_budget_s,
            allow_cpu_fallback=rules.allow_cpu_fallback,
        )
    except (PackageError, InsightsError, ModelLoadError) as error:
        raise Refused(str(error)) from error
    loaded = LoadedRelease(index.digest, package, choice.best, profile)
    chosen = next(trial for trial in choice.table if trial.variant == choice.best.variant)
    problem = ""
    if rules.max_latency_ms and (chosen.median_ms or 0.0) > rules.max_latency_ms:
        problem = f"one row takes {chosen.median_ms:.2f} ms; the budget is {rules.max_latency_ms:g} ms (max_latency_ms)"
    memory = psutil.Process().memory_info().rss
    if rules.max_memory_bytes and memory > rules.max_memory_bytes:
        problem = f"the agent then takes {memory:,} bytes; the budget is {rules.max_memory_bytes:,} (max_memory_bytes)"
    if problem:
        choice.best.close()
        raise Refused(problem)
    return Tested(loaded, choice.table)


def load_installed(folder: Path, index: Index, installed: Installed, rules: TestingRules) -> LoadedRelease:
    """Load a release that was committed before, as it ran best then; its golden cases are checked again.

    Raises:
        Refused: it can no longer be loaded here; the message says why.
    """
    quick = TestingRules(rules.policy, (), rules.allow_cpu_fallback, time_budget_s=0.0)
    return load_tested(folder, index, quick, variants=[installed.variant]).loaded
