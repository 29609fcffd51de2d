"""Which variant runs on which provider with how many threads: chosen by measurement on this very machine.

A candidate is loaded, held to the golden cases, and timed against the best one so far, run by run in turn, so that both
see the same heat, clock and neighbours. At most two are in memory at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, replace
from typing import Any, TypeVar

import numpy as np

from edgeloop.package import Package, PackageError
from edgeloop.records import dataclass
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.evidence import Trial
from edgeloop.runtime.golden import GoldenReport, check_golden
from edgeloop.runtime.isolated import MISSING_LIBRARY, PROGRESS_S, Progress, try_in_child
from edgeloop.runtime.launch import Launch
from edgeloop.runtime.memory import resident_bytes
from edgeloop.runtime.options import ProviderOptions
from edgeloop.runtime.policy import Policy, thread_settings
from edgeloop.runtime.providers import (
    CPU,
    OPENVINO,
    available_providers,
    missing_because,
    providers_for,
    usable_providers,
)
from edgeloop.runtime.session import ModelSession

#: Runs that are timed for a candidate, at most: more would not change a median's order.
MOST_RUNS = 50
#: Slow models get so many runs, as long as that takes no more than so many times the budget.
LEAST_RUNS, OVER_BUDGET = 5, 4
#: A later candidate has to be faster by this share: within it, fewer threads and the package's own order decide.
CLEARLY = 0.03
#: Seconds that a run of the golden cases may take on the CPU.
RUN_DEADLINE_S = 30.0

#: Stands for all variants where a provider as a whole is hopeless.
ANY_VARIANT = ""
#: What the table says of a provider that crashed this process.
CRASHED = "it brought the agent's own process down when it was loaded"

T = TypeVar("T")
#: Around each loading in this process, given the provider.
Guard = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Rules:
    """What the owner of the machine decides about providers.

    Attributes:
        policy: how much of the machine a run may take.
        threads: for one run; 0: those of the policy are measured.
        required: providers of which one has to be used; empty: any.
        allowed: providers that may be tried; empty: all that are there.
        allow_cpu_fallback: whether nodes may run on the CPU that the provider does not support.
        options: by provider.
        time_budget_s: seconds for timing, shared by the candidates.
        max_memory_bytes: of the whole process with the candidate loaded; 0: any.
        deadline_s: seconds in which a provider has to load a model; the first time it may have to compile it.
        isolate: whether providers other than the CPU are tried in a process of their own first.
    """

    policy: Policy = "balanced"
    threads: int = 0
    required: Sequence[str] = ()
    allowed: Sequence[str] = ()
    allow_cpu_fallback: bool = False
    options: Mapping[str, ProviderOptions] = field(default_factory=dict)
    time_budget_s: float = 2.0
    max_memory_bytes: int = 0
    deadline_s: float = 900.0
    isolate: bool = True

    def launch(self, provider: str, threads: int, compiled: Compiled | None) -> Launch:
        """How a candidate is run."""
        return Launch(provider, self.policy, threads, self.allow_cpu_fallback, self.options, compiled)


@dataclass(frozen=True)
class Candidate:
    """A variant on a provider with a number of threads."""

    variant: str
    provider: str
    threads: int


@dataclass(frozen=True, eq=False)
class Choice:
    """The best session, its golden report, and every candidate that was tried.

    Attributes:
        best: the session.
        golden: its report.
        table: every candidate.
        chosen: position of the best in the table.
        note: what changed against an earlier choice, as a sentence.
    """

    best: ModelSession
    golden: GoldenReport
    table: tuple[Trial, ...]
    chosen: int = 0
    note: str = ""

    @property
    def winner(self) -> Trial:
        """The best one's row."""
        return self.table[self.chosen]


def silent(_: str) -> None:
    """Progress that nobody wants to see."""


def candidates(package: Package, rules: Rules, variants: Sequence[str] | None = None) -> list[Candidate]:
    """What may be tried, in the package's order; fewest threads first.

    Args:
        package: the package.
        rules: the owner's.
        variants: names of the variants that may run; None: those that are here.

    Raises:
        ModelLoadError: there is nothing to try; the message says why.
    """
    if unknown := set(variants or ()) - set(package.variants):
        raise ModelLoadError(f"there is no variant {min(unknown)!r}; there are {', '.join(package.variants)}")
    specs = [package.variants[name] for name in (variants or _present(package))]
    found = [
        Candidate(spec.name, provider, threads)
        for spec in specs
        # A variant's own provider is tried although it is not there: the table then says what it lacks.
        for provider in dict.fromkeys((spec.ep, *providers_for(spec.ep, available_providers())))
        if (not rules.required or provider in rules.required) and (not rules.allowed or provider in rules.allowed)
        for threads in _threads(provider, rules)
    ]
    if found:
        return found
    if not specs:
        raise ModelLoadError(f"no variant of the package is here; this machine has {available_providers()}")
    made_for = ", ".join(f"{v.name}: {v.ep}" for v in package.variants.values())
    if rules.required and not usable_providers(rules.required):
        lacks = "; ".join(missing_because(provider) for provider in rules.required)
        raise ModelLoadError(f"the policy requires {' or '.join(rules.required)}: {lacks}")
    if rules.required:
        raise ModelLoadError(
            f"the policy requires {' or '.join(rules.required)}, and the package has no variant for it ({made_for})"
        )
    raise ModelLoadError(
        f"the policy allows {' and '.join(rules.allowed)}, and the package has no variant for it ({made_for})"
    )


def choose(
    package: Package,
    rules: Rules | None = None,
    *,
    variants: Sequence[str] | None = None,
    compiled: Compiled | None = None,
    progress: Progress = silent,
    guard: Guard = lambda provider: nullcontext(),
    distrusted: Collection[str] = (),
) -> Choice:
    """Load every candidate, check its golden cases, time it, and keep the fastest correct one.

    Args:
        package: the package.
        rules: the owner's.
        variants: names of the variants that may run; None: those that are here.
        compiled: where what providers compile is kept.
        progress: told of what takes long.
        guard: around each loading in this process.
        distrusted: providers that are not tried, since they have crashed this process before.

    Raises:
        ModelLoadError: no candidate is right; the message holds the reason of each.
    """
    rules = rules or Rules()
    bench = _Bench(package, rules, compiled, progress, guard, resident_bytes())
    tried = candidates(package, rules, variants)
    bench.hopeless = {(provider, ANY_VARIANT): CRASHED for provider in distrusted}
    for position, candidate in enumerate(tried):
        bench.enter(position, candidate, rules.time_budget_s / len(tried))
    return bench.choice(rules.time_budget_s / len(tried))


@dataclass(eq=False)
class _Contender:
    position: int
    session: ModelSession
    golden: GoldenReport


@dataclass(eq=False)
class _Bench:
    """One round of trials: the best so far, and the table."""

    package: Package
    rules: Rules
    compiled: Compiled | None
    progress: Progress
    guard: Guard
    resident_before: int | None
    table: list[Trial] = field(default_factory=list)
    best: _Contender | None = None
    #: Provider and variant → why it must not be loaded again: other threads would crash, hang or be wrong as well.
    hopeless: dict[tuple[str, str], str] = field(default_factory=dict)
    #: Provider and variant that a process of their own has survived.
    survived: set[tuple[str, str]] = field(default_factory=set)

    def enter(self, position: int, candidate: Candidate, budget_s: float) -> None:
        """Try one candidate; if it beats the best one, it takes its place."""
        contender = self._load(position, candidate)
        if contender is None:
            return
        if self.best is None:
            self.best = contender
            return
        self._duel(self.best, contender, budget_s)

    def choice(self, budget_s: float) -> Choice:
        """The result."""
        if self.best is not None and self.table[self.best.position].median_ms is None:
            self._time([self.best], budget_s)  # it had no opponent
        if self.best is None or not self.table[self.best.position].ok:
            if self.best is not None:
                self.best.session.close()
            reasons = dict.fromkeys(f"{trial.variant} on {trial.provider}: {trial.reason}" for trial in self.table)
            raise ModelLoadError("; ".join(reasons))
        return Choice(self.best.session, self.best.golden, tuple(self.table), self.best.position)

    def _load(self, position: int, candidate: Candidate) -> _Contender | None:
        row = Trial(candidate.variant, candidate.provider, False, None, "", candidate.threads)
        self.table.append(row)
        key = (candidate.provider, candidate.variant)
        known = self.hopeless.get(key) or self.hopeless.get((candidate.provider, ANY_VARIANT))
        if known is not None:
            self.table[position] = replace(row, reason=known)
            return None
        try:
            if self.rules.isolate and key not in self.survived:
                survive(self.package, candidate, self.rules, self.compiled, self.progress)
                self.survived.add(key)
            before, start = resident_bytes(), time.monotonic()
            with self.guard(candidate.provider):
                session, golden = load_checked(self.package, candidate, self.rules, self.compiled, self.progress)
        except ModelLoadError as error:
            lacks = str(error).startswith(MISSING_LIBRARY)
            self.hopeless[(candidate.provider, ANY_VARIANT) if lacks else key] = str(error)
            self.table[position] = replace(row, reason=str(error))
            return None
        grown = _difference(resident_bytes(), before)
        row = replace(row, load_ms=round((time.monotonic() - start) * 1e3, 1), memory_bytes=grown)
        self.table[position] = row
        over = self._over_budget(grown)
        if over:
            session.close()
            self.table[position] = replace(row, reason=over)
            return None
        return _Contender(position, session, golden)

    def _over_budget(self, grown: int | None) -> str:
        limit = self.rules.max_memory_bytes
        if not limit or grown is None or self.resident_before is None:
            return ""
        whole = self.resident_before + grown
        return f"the process then takes {whole:,} bytes; the budget is {limit:,} (max_memory_bytes)" * (whole > limit)

    def _duel(self, best: _Contender, challenger: _Contender, budget_s: float) -> None:
        first, second = self._time([best, challenger], budget_s)
        wins = second is not None and (first is None or second < first * (1 - CLEARLY))
        loser = best if wins else challenger
        self.best = challenger if wins else best
        loser.session.close()

    def _time(self, contenders: list[_Contender], budget_s: float) -> list[float | None]:
        """Medians of this round. The table has the least of all rounds: the least disturbed one."""
        row = {name: values[:1] for name, values in self.package.golden().inputs.items()}
        medians: list[float | None] = []
        for contender, (times, reason) in zip(contenders, _timed(contenders, row, budget_s), strict=True):
            trial = self.table[contender.position]
            median = float(np.median(times)) if times and not reason else None
            least = min((m for m in (median, trial.median_ms) if m is not None), default=None)
            self.table[contender.position] = replace(
                trial,
                ok=median is not None,
                median_ms=None if median is None else least,
                runs=trial.runs + len(times),
                reason=reason,
            )
            medians.append(median)
        return medians


def _timed(contenders: Sequence[_Contender], row: Mapping[str, Any], budget_s: float) -> list[tuple[list[float], str]]:
    """For each: milliseconds of its runs, and why it failed. They run in turn; the first run of each is not counted."""
    times: list[list[float]] = [[] for _ in contenders]
    reasons = [""] * len(contenders)
    start_s = time.monotonic()
    for run in range(MOST_RUNS + 1):
        spent_s = time.monotonic() - start_s
        if run > 1 and spent_s > budget_s * (1 if run > LEAST_RUNS else OVER_BUDGET):
            break
        for number, contender in enumerate(contenders):
            if reasons[number]:
                continue
            start = time.perf_counter_ns()
            try:
                contender.session.run(row, None, RUN_DEADLINE_S)
            except InferenceError as error:
                reasons[number] = f"it failed on one golden case alone: {error}"
                continue
            if run:
                times[number].append((time.perf_counter_ns() - start) / 1e6)
    return list(zip(times, reasons, strict=True))


def survive(
    package: Package, candidate: Candidate, rules: Rules, compiled: Compiled | None, progress: Progress
) -> None:
    """Have a process of its own load and check one candidate; the CPU's need not be tried.

    Raises:
        ModelLoadError: it does not load there, hangs, crashes the process, or is wrong.
    """
    if candidate.provider == CPU:
        return
    if candidate.provider not in available_providers():
        raise ModelLoadError(missing_because(candidate.provider))
    progress(f"{candidate.variant} is tried on {candidate.provider}, which may have to compile it first")
    launch = rules.launch(candidate.provider, candidate.threads, compiled)
    if reason := try_in_child(package, candidate.variant, launch, progress, rules.deadline_s):
        raise ModelLoadError(reason)


def load_checked(
    package: Package, candidate: Candidate, rules: Rules, compiled: Compiled | None, progress: Progress
) -> tuple[ModelSession, GoldenReport]:
    """Load one candidate and hold it to the golden cases.

    Args:
        package: the package.
        candidate: what is loaded.
        rules: the owner's.
        compiled: where what providers compile is kept.
        progress: told of what takes long.

    Raises:
        ModelLoadError: it does not load, hangs, or is wrong.
    """
    launch = rules.launch(candidate.provider, candidate.threads, compiled)
    if candidate.provider == CPU:
        return _checked(package, candidate, launch, RUN_DEADLINE_S)
    what = f"{candidate.variant} is loaded on {candidate.provider}"
    return supervised(lambda: _checked(package, candidate, launch, rules.deadline_s), what, progress, rules.deadline_s)


def _checked(
    package: Package, candidate: Candidate, launch: Launch, deadline_s: float
) -> tuple[ModelSession, GoldenReport]:
    session = ModelSession.load(
        package,
        candidate.variant,
        candidate.provider,
        policy=launch.policy,
        threads=launch.threads,
        allow_cpu_fallback=launch.allow_cpu_fallback,
        options=launch.options,
        compiled=launch.compiled,
    )
    try:
        golden = check_golden(session, package, deadline_s)
    except PackageError as error:
        session.close()
        raise ModelLoadError(f"golden: {error}") from error
    if not golden.ok:
        session.close()
        raise ModelLoadError(golden.reason)
    return session, golden


def supervised(action: Callable[[], T], what: str, progress: Progress, deadline_s: float) -> T:
    """Do something that may hang: on a thread of its own, with a line of progress every few seconds.

    Native code cannot be stopped: after the deadline its thread is left behind.

    Raises:
        ModelLoadError: it took too long; or whatever the action raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="loading", daemon=True)
    start = time.monotonic()
    thread.start()
    while thread.is_alive():
        elapsed = time.monotonic() - start
        if elapsed > deadline_s:
            raise ModelLoadError(f"{what}: it took longer than {deadline_s:.0f} s")
        thread.join(min(PROGRESS_S, deadline_s - elapsed + 0.01))
        if thread.is_alive():
            progress(f"{what}, {time.monotonic() - start:.0f} s so far")
    if errors:
        raise errors[0]
    return results[0]


def _threads(provider: str, rules: Rules) -> tuple[int, ...]:
    """Threads that are tried: they matter where the CPU computes; elsewhere one number will do."""
    settings = thread_settings(rules.policy, rules.threads)
    if provider in (CPU, OPENVINO):
        return settings
    return settings[-1:] if rules.allow_cpu_fallback else settings[:1]


def _present(package: Package) -> list[str]:
    return [spec.name for spec in package.variants.values() if (package.root / spec.model_file).is_file()]


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)
