"""Testing: a release is loaded beside the one that serves, and has to prove itself on this very device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from edge_agent.ports import LoadedRelease
from edge_agent.settings import Settings
from edge_agent.updates.errors import Refused
from edge_agent.updates.store import Installed
from edgeloop.insights import InsightsError
from edgeloop.package import Index, Package, PackageError
from edgeloop.records import dataclass
from edgeloop.runtime import (
    Choice,
    ModelLoadError,
    Policy,
    Progress,
    ProviderOptions,
    Rules,
    Selector,
    Trial,
    read_options,
    silent,
)


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
        threads: for one run; 0: those of the policy are measured.
        allowed_providers: that may be tried; empty: all that are there.
        provider_options: the owner's, by provider.
        provider_deadline_s: for loading, which may compile the model.
        compiled_max_bytes: of what providers have compiled and the agent keeps.
        data: folder in which tables and compiled models are kept.
    """

    __test__ = False  # pytest takes its name for a test's

    policy: Policy = "balanced"
    required_providers: Sequence[str] = ()
    allow_cpu_fallback: bool = False
    max_latency_ms: float = 0.0
    max_memory_bytes: int = 0
    time_budget_s: float = 2.0
    threads: int = 0
    allowed_providers: Sequence[str] = ()
    provider_options: Mapping[str, ProviderOptions] = field(default_factory=dict)
    provider_deadline_s: float = 900.0
    compiled_max_bytes: int = 2 << 30
    data: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> TestingRules:
        """The rules that the agent's settings say."""
        return cls(
            policy=settings.policy,
            required_providers=settings.required_providers,
            allow_cpu_fallback=settings.allow_cpu_fallback,
            max_latency_ms=settings.max_latency_ms,
            max_memory_bytes=settings.max_memory_bytes,
            time_budget_s=settings.trial_budget_s,
            threads=settings.threads,
            allowed_providers=settings.allowed_providers,
            provider_options=read_options(settings.providers or {}),
            provider_deadline_s=settings.provider_deadline_s,
            compiled_max_bytes=settings.compiled_max_bytes,
            data=settings.data,
        )

    def for_providers(self) -> Rules:
        """What of it is about the choice of a provider."""
        return Rules(
            policy=self.policy,
            threads=self.threads,
            required=tuple(self.required_providers),
            allowed=tuple(self.allowed_providers),
            allow_cpu_fallback=self.allow_cpu_fallback,
            options=self.provider_options,
            time_budget_s=self.time_budget_s,
            max_memory_bytes=self.max_memory_bytes,
            deadline_s=self.provider_deadline_s,
        )


@dataclass(frozen=True, eq=False)
class Tested:
    """A release that passed, the table of all candidates that were tried, and what changed against an earlier one."""

    loaded: LoadedRelease
    table: tuple[Trial, ...]
    note: str = ""


def load_tested(
    folder: Path,
    index: Index,
    rules: TestingRules,
    *,
    variants: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Tested:
    """Load a release, check its golden cases on the provider that really runs, and hold it to the budgets.

    Args:
        folder: of the release; it holds the files of some variants.
        index: of the release.
        rules: what it must show.
        variants: names of the variants that may run; None: those that are here.
        progress: told of what takes long.

    Raises:
        Refused: with the reason.
    """
    with _reasons():
        package = Package.open(folder, index=index)
        profile = package.profile()
        choice = _selector(rules).select(package, variants=variants, progress=progress)
    if problem := _over_budget(choice, rules):
        choice.best.close()
        raise Refused(problem)
    return Tested(LoadedRelease(index.digest, package, choice.best, profile), choice.table, choice.note)


def load_installed(
    folder: Path, index: Index, installed: Installed, rules: TestingRules, *, progress: Progress = silent
) -> LoadedRelease:
    """Load a release that was committed before, as it ran best then; its golden cases are checked again.

    If the table of its candidates is not true any more, it serves at once as it did before, whatever providers are
    required by now; `measure_again` then finds what is best. Only what does not work any more is measured first.

    Raises:
        Refused: it can no longer be loaded here; the message says why.
    """
    selector = _selector(rules)
    with _reasons():
        package = Package.open(folder, index=index)
        profile = package.profile()
        known = selector.store.read(index.digest)
        # What was committed before there were tables names no number of threads: it is the policy's most, as it was.
        before = known.winner if known else Trial(installed.variant, installed.provider, True, None, "")
        # A driver may have changed: a process of its own has to survive it first.
        isolate = selector.fresh(index.digest) is None
        try:
            session = selector.reload(package, before, isolate=isolate, progress=progress).best
        except ModelLoadError as error:
            progress(f"{before.variant} on {before.provider} does not work any more: {error}")
            session = selector.measure(package, progress=progress).best
    return LoadedRelease(index.digest, package, session, profile)


def measure_again(loaded: LoadedRelease, rules: TestingRules, *, progress: Progress = silent) -> Tested | None:
    """Find what runs a serving release best, if the table of its candidates is not true any more.

    Returns:
        None when the table is true, or when what serves is still the best.

    Raises:
        Refused: nothing does what the rules want, such as running on a required provider; the message says why.
    """
    selector = _selector(rules)
    if selector.fresh(loaded.digest) is not None:
        return None
    with _reasons():
        choice = selector.measure(loaded.package, progress=progress)
    old, new = loaded.session, choice.best
    if (old.variant, old.provider, old.threads) == (new.variant, new.provider, new.threads):
        new.close()
        return None
    return Tested(LoadedRelease(loaded.digest, loaded.package, new, loaded.profile), choice.table, choice.note)


def forget_others(rules: TestingRules, releases: Sequence[str]) -> None:
    """Remove tables and compiled models of all other releases."""
    _selector(rules).keep(releases)


def _selector(rules: TestingRules) -> Selector:
    if rules.data is None:
        raise ValueError("the rules name no folder in which tables are kept")
    return Selector(rules.data, rules.for_providers(), compiled_max_bytes=rules.compiled_max_bytes)


def _over_budget(choice: Choice, rules: TestingRules) -> str:
    took = choice.winner.median_ms or 0.0
    if rules.max_latency_ms and took > rules.max_latency_ms:
        return f"one row takes {took:.2f} ms; the budget is {rules.max_latency_ms:g} ms (max_latency_ms)"
    if rules.max_memory_bytes and (memory := _memory()) > rules.max_memory_bytes:
        return f"the agent then takes {memory:,} bytes; the budget is {rules.max_memory_bytes:,} (max_memory_bytes)"
    return ""


def _memory() -> int:
    import psutil  # only a device with a budget pays for the import

    return int(psutil.Process().memory_info().rss)


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except (PackageError, InsightsError, ModelLoadError) as error:
        raise Refused(str(error)) from error
