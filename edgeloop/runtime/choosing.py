"""Which variant runs on which provider: chosen by measurement on this very machine, never by hope."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.package import Package, PackageError
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.golden import GoldenReport, check_golden
from edgeloop.runtime.providers import Policy, available_providers
from edgeloop.runtime.session import ModelSession

#: Runs that are timed for a candidate, at most: more would not change a median's order.
MOST_RUNS = 50


@dataclass(frozen=True)
class Trial:
    """One candidate: variant and provider, whether it is right, its median time for one row in milliseconds."""

    variant: str
    provider: str
    ok: bool
    median_ms: float | None
    reason: str


@dataclass(frozen=True, eq=False)
class Choice:
    """The best session, its golden report, and every candidate that was tried."""

    best: ModelSession
    golden: GoldenReport
    table: tuple[Trial, ...]


def choose(
    package: Package,
    *,
    required: Sequence[str] = (),
    variants: Sequence[str] | None = None,
    policy: Policy = "balanced",
    time_budget_s: float = 2.0,
    allow_cpu_fallback: bool = False,
) -> Choice:
    """Load every candidate, check its golden cases, time it, and keep the fastest correct one.

    Args:
        package: the package.
        required: providers of which one has to be used; empty: any.
        variants: names of the variants that may run; None: those that are here.
        policy: how much of the machine a run may take.
        time_budget_s: seconds for timing, shared by the candidates.
        allow_cpu_fallback: whether nodes may run on the CPU that the provider does not support.

    Raises:
        ModelLoadError: no candidate is right; the message holds the reason of each.
    """
    if unknown := set(variants or ()) - set(package.variants):
        raise ModelLoadError(f"there is no variant {min(unknown)!r}; there are {', '.join(package.variants)}")
    specs = [package.variants[name] for name in (variants or _present(package))]
    if required:
        specs = [spec for spec in specs if spec.ep in required]
        if not specs:
            raise ModelLoadError(
                f"the policy requires {' or '.join(required)}, and the package has no variant for it "
                f"({', '.join(f'{v.name}: {v.ep}' for v in package.variants.values())})"
            )
    table: list[Trial] = []
    best: tuple[float, ModelSession, GoldenReport] | None = None
    for spec in specs:
        try:
            session = ModelSession.load(
                package, spec.name, spec.ep, policy=policy, allow_cpu_fallback=allow_cpu_fallback
            )
        except ModelLoadError as error:
            table.append(Trial(spec.name, spec.ep, False, None, str(error)))
            continue
        try:
            golden = check_golden(session, package)
        except PackageError as error:
            session.close()
            table.append(Trial(spec.name, spec.ep, False, None, f"golden: {error}"))
            continue
        median = _median_ms(session, package, time_budget_s / len(specs)) if golden.ok else None
        reason = "it failed on one golden case alone" if golden.ok and median is None else golden.reason
        table.append(Trial(spec.name, spec.ep, median is not None, median, reason))
        if median is not None and (best is None or median < best[0]):
            if best is not None:
                best[1].close()
            best = median, session, golden
        else:
            session.close()
    if best is None:
        reasons = "; ".join(f"{trial.variant} on {trial.provider}: {trial.reason}" for trial in table)
        raise ModelLoadError(reasons or f"no variant of the package is here; this machine has {available_providers()}")
    return Choice(best[1], best[2], tuple(table))


def _present(package: Package) -> list[str]:
    return [spec.name for spec in package.variants.values() if (package.root / spec.model_file).is_file()]


def _median_ms(session: ModelSession, package: Package, budget_s: float) -> float | None:
    row = {name: values[:1] for name, values in package.golden().inputs.items()}
    times: list[float] = []
    end = time.monotonic() + budget_s
    while len(times) < MOST_RUNS and (not times or time.monotonic() < end):
        start = time.perf_counter_ns()
        try:
            session.run(row, None, 30.0)
        except InferenceError:
            return None
        times.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(times)
