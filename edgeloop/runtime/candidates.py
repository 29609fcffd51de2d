"""What may be tried: the owner's rules, and each variant × provider × number of threads that they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from edgeloop.package import Package
from edgeloop.records import dataclass
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import ModelLoadError
from edgeloop.runtime.launch import Launch
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


def _threads(provider: str, rules: Rules) -> tuple[int, ...]:
    """Threads that are tried: they matter where the CPU computes; elsewhere one number will do."""
    settings = thread_settings(rules.policy, rules.threads)
    if provider in (CPU, OPENVINO):
        return settings
    return settings[-1:] if rules.allow_cpu_fallback else settings[:1]


def _present(package: Package) -> list[str]:
    return [spec.name for spec in package.variants.values() if (package.root / spec.model_file).is_file()]
