"""A candidate and fp32, side by side in a package, timed in the runtime that will serve it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.package import Draft, DraftVariant, HeadSpec, OutputSpec, Package, PackageError, TensorSpec, write_package
from edgeloop.runtime.comparing import Compared, Setting, compare
from edgeloop.runtime.datatypes import oip_name
from edgeloop.runtime.policy import Policy, threads_of
from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.prepare import Prepared
from model_export.variants.made import Variant

#: Golden cases of a package that only trials read.
CASES = 8
#: Timing ends when a ratio is known to this share: a search takes candidates that are closer for equal.
CLOSE = 0.03


@dataclass(frozen=True)
class Bench:
    """Where candidates are timed.

    Attributes:
        prepared: the float model.
        rows: of which the first are run.
        name: of the packages that are made: a hub asks whose model it is.
        policy: of the runtime.
        threads: of one run; 0: the most that the policy allows.
    """

    prepared: Prepared
    rows: Mapping[str, Array]
    name: str = "trial"
    policy: Policy = "balanced"
    threads: int = 0

    def compare(
        self, base: Variant, candidates: Sequence[Variant], budget_s: float, hopeless: float = math.inf
    ) -> list[Compared]:
        """Time candidates against fp32.

        Args:
            base: fp32.
            candidates: others, of one target.
            budget_s: seconds for all of them.
            hopeless: timing ends when every candidate surely takes more than so many times as long.

        Returns:
            Of fp32, then of each candidate.

        Raises:
            UnsupportedModelError: one cannot be packaged.
        """
        setting = Setting(candidates[0].recipe.made_for.ep, self.policy, self.threads or threads_of(self.policy))
        variants = {"baseline": base, **named(candidates)}
        with tempfile.TemporaryDirectory(prefix="edgeloop-trial-") as folder:
            package = self.package(Path(folder) / "package", variants)
            return compare(package, tuple(variants), setting, budget_s, close=CLOSE, hopeless=hopeless)

    def package(self, folder: Path, variants: Mapping[str, Variant]) -> Package:
        """A package of variants under other names, with golden cases, and without what only a hub needs.

        Args:
            folder: must not exist.
            variants: by name; the first that is fp32 gives the datatypes.

        Raises:
            UnsupportedModelError: it cannot be written.
        """
        prepared, head = self.prepared, self.prepared.head
        some = next(iter(variants.values()))
        cases = {name: array[:CASES] for name, array in self.rows.items()}
        answers: dict[str, dict[str, Array]] = {}
        for variant in variants.values():
            outputs = {name: array[:CASES] for name, array in variant.outputs.items()}
            roles = prepared.roles
            answers.setdefault(variant.precision, {n: a for n, a in outputs.items() if roles[n] != "features"})
        draft = Draft(
            name=self.name,
            version="1",
            variants=[_draft(name, variant) for name, variant in variants.items()],
            labels=prepared.class_names,
            inputs=[TensorSpec(spec.name, oip_name(spec.dtype), (-1, *spec.shape)) for spec in prepared.inputs],
            outputs=[_spec(name, some.outputs[name], role) for name, role in prepared.roles.items()],
            golden_inputs=cases,
            golden_outputs=answers,
            features=None if head is None else head.features,
            head=None
            if head is None
            else HeadSpec(head.weight, head.bias, head.activation or "identity", head.transposed),
            profile=None,
            validation=None,
        )
        try:
            return write_package(folder, draft)
        except PackageError as error:
            raise UnsupportedModelError(f"it cannot be packaged: {error}") from error


def _draft(name: str, variant: Variant) -> DraftVariant:
    target = variant.recipe.made_for
    options = target.provider_options(variant.precision)
    return DraftVariant(name, variant.precision, variant.model, target.ep, target.device, options)


def _spec(name: str, array: Array, role: str) -> OutputSpec:
    return OutputSpec(name, oip_name(array.dtype), (-1, *array.shape[1:]), role)


def named(variants: Sequence[Variant]) -> dict[str, Variant]:
    """Variants of which several may have the same name, by names of their own."""
    return {f"{variant.name}-{i}": variant for i, variant in enumerate(variants)}
