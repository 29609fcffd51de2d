"""A package in the caller's own process: ``from edgeloop.runtime import Model``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeloop.package import OutputSpec, Package, TensorSpec
from edgeloop.runtime.candidates import Rules
from edgeloop.runtime.choosing import Choice, choose
from edgeloop.runtime.errors import InferenceError
from edgeloop.runtime.evidence import Trial
from edgeloop.runtime.options import read_options
from edgeloop.runtime.policy import Policy
from edgeloop.runtime.selection import Selector

Array = npt.NDArray[Any]


class Prediction(NamedTuple):
    """What a classifier says.

    Attributes:
        label: index of the class, int64 [N].
        names: of the classes, N of them; the index as text where the package has no names.
        probabilities: [N, K], or None when the model gives neither probabilities nor logits.
    """

    label: npt.NDArray[np.int64]
    names: list[str]
    probabilities: Array | None


class Model:
    """A package that runs here, as an agent would run it.

    Every candidate (variant, provider, number of threads) is held to the golden cases and timed, and the fastest
    correct one is used; see docs/reference/providers.md. The package is not audited: use
    ``edgeloop.package.audit_in_child`` on what comes from outside.

    Attributes:
        name: of the package.
        version: of the package.
        digest: the release's identity.
        labels: names of the classes.
        inputs: what `run` takes.
        outputs: what it gives, with roles.
        variant: that runs.
        provider: on which it runs.
        threads: of one run.
        placement: provider → nodes that really run there.
        table: every candidate that was tried.
    """

    def __init__(self, package: Package, choice: Choice) -> None:
        session = choice.best
        self.name, self.version, self.digest = package.name, package.version, package.digest
        self.labels: Sequence[str] = package.meta.labels
        self.inputs: Sequence[TensorSpec] = session.inputs
        self.outputs: Sequence[OutputSpec] = session.outputs
        self.variant, self.provider, self.threads = session.variant, session.provider, session.threads
        self.placement = session.placement
        self.table: Sequence[Trial] = choice.table
        self._session = session
        self._names = [output.name for output in session.outputs]

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        policy: Policy = "balanced",
        providers: Collection[str] = (),
        threads: int = 0,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        allow_cpu_fallback: bool = False,
        cache: Path | str | None = None,
        time_budget_s: float = 1.0,
    ) -> Model:
        """Open a package folder and load what runs it best.

        Args:
            path: the package's folder.
            policy: how much of the machine a run may take.
            providers: execution providers of which one has to run it, by ONNX Runtime's names; empty: any.
            threads: for one run; 0: those of the policy are measured.
            options: provider → option → value.
            allow_cpu_fallback: whether nodes that the provider does not support may run on the CPU.
            cache: folder in which the choice and compiled models are kept from one start to the next. With it, other
                providers than the CPU are first tried in a process of their own, which a crash of a driver ends.
            time_budget_s: seconds for timing, shared by the candidates.

        Raises:
            PackageError: the folder is no package.
            OptionsError: an option is wrong.
            ModelLoadError: nothing runs it correctly here; the message has each reason.
        """
        rules = Rules(
            policy=policy,
            threads=threads,
            required=tuple(providers),
            allow_cpu_fallback=allow_cpu_fallback,
            options=read_options(options or {}),
            time_budget_s=time_budget_s,
            isolate=cache is not None,
        )
        package = Package.open(Path(path))
        return cls(package, choose(package, rules) if cache is None else Selector(Path(cache), rules).select(package))

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None, deadline_s: float | None = None
    ) -> dict[str, Array]:
        """Run the model.

        Args:
            inputs: by name, of the shapes and dtypes of ``self.inputs``.
            outputs: names of the outputs that are wanted; None: all.
            deadline_s: seconds after which the run is stopped; None: never.

        Returns:
            Outputs by name.

        Raises:
            DeadlineExceeded: it took too long.
            InferenceError: the model failed on this input.
        """
        found = self._session.run(inputs, outputs, deadline_s)
        return dict(zip(self._names if outputs is None else outputs, found, strict=True))

    def predict(self, x: Array) -> Prediction:
        """Classify rows.

        Args:
            x: [N, …] of the first input's dtype, or a single row […].

        Raises:
            InferenceError: the model has more than one input or gives no class, or failed.
        """
        if len(self.inputs) != 1:
            raise InferenceError(f"{self.name} has {len(self.inputs)} inputs; give them by name to run()")
        (spec,) = self.inputs
        x = np.asarray(x)
        found = self.run({spec.name: x[None] if x.ndim == len(spec.shape) - 1 else x})
        probabilities = self._session.probabilities(found)
        roles = self._session.roles
        if "label" in roles:
            label = found[roles["label"]].astype(np.int64).reshape(-1)
        elif probabilities is not None:
            label = probabilities.argmax(axis=-1).astype(np.int64)
        else:
            raise InferenceError(f"{self.name} gives no label, probabilities or logits; use run()")
        return Prediction(label, [self._name(index) for index in label.tolist()], probabilities)

    def close(self) -> None:
        """Free the model's memory; a run after this fails."""
        self._session.close()

    def __enter__(self) -> Model:
        """Use the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free its memory."""
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.version}: {self.variant} on {self.provider}, {self.threads} threads>"

    def _name(self, index: int) -> str:
        return self.labels[index] if 0 <= index < len(self.labels) else str(index)
