"""Which variant runs on which provider with how many threads: chosen by measurement on this very machine.

A candidate is loaded, held to the golden cases, and timed against the best one so far, run by run in turn, so that both
see the same heat, clock and neighbours. At most two are in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, replace
from typing import Any

from edgeloop.package import Package
from edgeloop.records import dataclass
from edgeloop.runtime.candidates import Candidate, Rules, candidates
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.evidence import Trial
from edgeloop.runtime.golden import GoldenReport
from edgeloop.runtime.isolated import MISSING_LIBRARY, Progress
from edgeloop.runtime.memory import resident_bytes
from edgeloop.runtime.session import ModelSession
from edgeloop.runtime.trying import RUN_DEADLINE_S, load_checked, silent, survive

#: Runs that are timed for a candidate, at most: more would not change a median's order.
MOST_RUNS = 50
#: Slow models get so many runs, as long as that takes no more than so many times the budget.
LEAST_RUNS, OVER_BUDGET = 5, 4
#: A later candidate has to be faster by this share: within it, fewer threads and the package's own order decide.
CLEARLY = 0.03
#: Stands for all variants where a provider as a whole is hopeless.
ANY_VARIANT = ""
#: What the table says of a provider that crashed this process.
CRASHED = "it brought the agent's own process down when it was loaded"

#: Around each loading in this process, given the provider.
Guard = Callable[[str], AbstractContextManager[None]]


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
            median = _median(times) if times and not reason else None
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


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)


def _median(times: Sequence[float]) -> float:
    """NumPy's would import ``numpy.ma``, and ``statistics`` the fractions: here, beside the first requests."""
    ordered, middle = sorted(times), len(times) // 2
    return (ordered[middle] + ordered[~middle]) / 2
