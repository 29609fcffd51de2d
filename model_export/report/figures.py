"""Everything that a report shows, measured: each variant on the validation set, in the sessions that will serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.package import Package, PackageError
from edgeloop.provenance import ProvenanceError, parse, read
from edgeloop.runtime import InferenceError
from edgeloop.runtime.fingerprint import take
from model_export.errors import GoldenMismatchError, InvalidPackageError
from model_export.notebook import table_of
from model_export.reading.audited import open_audited
from model_export.reading.loading import graph_of, probabilities, sessions_of
from model_export.report import latency as clock
from model_export.report import layers, scores
from model_export.report.front import Point, Search, marked, read_search
from model_export.report.latency import Latency
from model_export.report.layers import LayerError
from model_export.report.observing import observations
from model_export.report.scores import Bin, PerClass
from model_export.report.tensors import Sizes, sizes
from model_export.trust import provenance
from model_export.tuning.tune import path_of as tuning_path
from model_export.variants.likeness import KEY

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VariantFigures:
    """Of one variant, on this machine.

    Attributes:
        reason: why it was not run; "" where it was. Without a run the fields below are empty.
        accuracy: on the validation set.
        interval: of 95 % of the accuracy (Wilson).
        agreement: share of rows with the decision of the reference.
        difference: largest difference of a probability to the reference's.
        latency: of one row.
        per_class: recall and precision.
        confusion: counts; row the true class, column the one that was said.
        bins: of the reliability diagram.
        ece: expected calibration error.
        layers: error of each node to the reference's.
    """

    name: str
    precision: str
    provider: str
    size_bytes: int
    reason: str = ""
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    agreement: float | None = None
    difference: float | None = None
    latency: Latency | None = None
    per_class: tuple[PerClass, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    bins: tuple[Bin, ...] = ()
    ece: float | None = None
    layers: tuple[LayerError, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a package is worth.

    Attributes:
        reference: name of the variant that the others are held against: the float one.
        best: name of the fastest variant that ran.
        rows: of the validation set.
        points: of the picture of accuracy against latency.
        search: whether the points are those of a search beside the package.
        observations: what a person should know, in sentences, the most important first.
        machine: where it was measured.
    """

    name: str
    version: str
    digest: str
    task: str
    labels: tuple[str, ...]
    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]
    head: bool
    rows: int
    reference: str
    best: str
    variants: tuple[VariantFigures, ...]
    points: tuple[Point, ...]
    search: Search | None
    sizes: Sizes
    lineage: Mapping[str, Any]
    recipe: Mapping[str, Any]
    documents: Mapping[str, Any] | None
    machine: Mapping[str, str]
    observations: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def variant(self, name: str) -> VariantFigures:
        """The figures of a variant."""
        return next(variant for variant in self.variants if variant.name == name)

    def _repr_html_(self) -> str:
        """A table of the variants, for Jupyter."""
        rows = [
            (
                v.name,
                "" if v.accuracy is None else f"{v.accuracy:.4f}",
                "" if v.latency is None else f"{v.latency.median:.3f} ms",
                f"{v.size_bytes / 1e3:,.1f} kB",
                "" if v.agreement is None else f"{v.agreement:.2%}",
            )
            for v in self.variants
        ]
        head = ("variant", "accuracy", "median", "size", "same decision")
        return table_of(f"{self.name} {self.version}", head, rows, self.observations)


def report(root: Path, *, on_step: Callable[[str], None] = lambda text: None) -> Report:
    """Audit a package, run its variants on its validation set, and say what they are worth here.

    Args:
        root: the package's folder; nothing of it is run before the audit.
        on_step: told what begins.

    Raises:
        InvalidPackageError: it failed its audit, or carries no validation set that can be read.
        GoldenMismatchError: no variant runs here.
        RequestError: the file of a search lies beside it and cannot be read.
    """
    on_step("auditing")
    package = open_audited(Path(root))
    search = read_search(tuning_path(Path(root)))
    inputs, truth = _validation(package)
    sized = sizes(package)
    ran = _run(package, inputs, on_step)
    reference = _reference(package, list(ran.outputs))
    labels = _labels(package, ran.outputs[reference].shape[1])
    plain, variants = graph_of(package, reference), []
    for name, spec in package.variants.items():
        size = sized.graphs[name] + sum(tensor.bytes for tensor in sized.tensors if name in tensor.variants)
        variant = VariantFigures(name, spec.precision, spec.ep, size, reason=ran.reasons.get(name, ""))
        if not variant.reason:
            on_step(f"layers of {name}")
            errors = () if name == reference else layers.compared(plain, graph_of(package, name), inputs)
            variant = replace(variant, latency=ran.latencies[name], layers=errors)
            variant = _judged(variant, ran.outputs[name], ran.outputs[reference], truth, labels)
        variants.append(variant)
    found = Report(
        name=package.name,
        version=package.version,
        digest=package.digest,
        task=package.meta.task,
        labels=labels,
        inputs=tuple(asdict(spec) for spec in package.meta.inputs),
        outputs=tuple(asdict(spec) for spec in package.meta.outputs),
        head=package.meta.head is not None,
        rows=len(truth),
        reference=reference,
        best=min(ran.latencies, key=lambda name: ran.latencies[name].median),
        variants=tuple(variants),
        points=search.points if search is not None else marked([_point(v) for v in variants if not v.reason]),
        search=search,
        sizes=sized,
        lineage=dict(package.meta.lineage),
        recipe=dict(package.meta.extra.get(KEY, {})),
        documents=_documents(Path(root), package.digest),
        machine=_machine(),
    )
    return replace(found, observations=observations(found))


@dataclass(frozen=True)
class _Ran:
    """Probabilities [N, K] and times of the variants that ran here, and why the others did not."""

    outputs: Mapping[str, Array]
    latencies: Mapping[str, Latency]
    reasons: Mapping[str, str]


def _run(package: Package, inputs: Mapping[str, Array], on_step: Callable[[str], None]) -> _Ran:
    sessions, reasons = sessions_of(package, package.variants)
    if not sessions:
        raise GoldenMismatchError(
            f"no variant of the package runs here: {'; '.join(reasons.values())}", "report where its provider is"
        )
    try:
        outputs = {}
        for name, session in sessions.items():
            on_step(f"{name} on {len(next(iter(inputs.values())))} validation rows")
            outputs[name] = probabilities(session, inputs)
        on_step("latency of all variants in turn")
        first = {name: array[:1] for name, array in inputs.items()}
        calls = [(lambda s=session: s.run(first)) for session in sessions.values()]
        timed = clock.measured(calls, [session.threads for session in sessions.values()])
    except InferenceError as error:
        raise GoldenMismatchError(
            f"the package does not run on its own validation set: {error}", "build it again, and verify it"
        ) from error
    finally:
        for session in sessions.values():
            session.close()
    return _Ran(outputs, dict(zip(sessions, timed, strict=True)), reasons)


def _validation(package: Package) -> tuple[dict[str, Array], scores.Labels]:
    try:
        found = package.validation()
    except PackageError as error:
        raise InvalidPackageError(f"its validation set cannot be read: {error}") from error
    if found is None or not len(found[1]):
        raise InvalidPackageError(
            f"{package.name} carries no validation set, so nothing can be measured",
            "report on the whole package, as built",
        )
    return dict(found[0]), found[1]


def _judged(
    variant: VariantFigures,
    found: scores.Array,
    reference: scores.Array,
    truth: scores.Labels,
    labels: tuple[str, ...],
) -> VariantFigures:
    """A variant with what its probabilities [N, K] are worth, beside the reference's."""
    said = found.argmax(axis=1)
    matrix = scores.confusion(said, truth, found.shape[1])
    accuracy = float((said == truth).mean())
    bins, ece = scores.reliability(found, truth)
    return replace(
        variant,
        accuracy=accuracy,
        interval=scores.wilson(accuracy, len(truth)),
        agreement=float((said == reference.argmax(axis=1)).mean()),
        difference=float(np.abs(found - reference).max()),
        per_class=scores.per_class(matrix, labels),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        bins=bins,
        ece=ece,
    )


def _labels(package: Package, classes: int) -> tuple[str, ...]:
    names = package.meta.labels
    return tuple(names[k] if k < len(names) else str(k) for k in range(classes))


def _reference(package: Package, ran: list[str]) -> str:
    """The most exact variant that ran here."""
    exact = ("fp32", "bf16", "fp16")
    order = {name: exact.index(p) if (p := package.variants[name].precision) in exact else len(exact) for name in ran}
    return min(ran, key=lambda name: order[name])


def _point(variant: VariantFigures) -> Point:
    latency = None if variant.latency is None else variant.latency.median
    return Point(variant.name, variant.accuracy or 0.0, latency, variant.size_bytes, front=False, chosen=True)


def _documents(root: Path, digest: str) -> dict[str, Any] | None:
    """What lies beside the package about how it was built; whether somebody is believed is `verify --provenance`'s."""
    found = provenance.find(root)
    if found is None:
        return None
    try:
        return {"signed": found.is_signed, "about_this_digest": parse(read(found.provenance).payload).digest == digest}
    except ProvenanceError:
        return {"signed": False, "about_this_digest": False}


def _machine() -> dict[str, str]:
    facts = take({}).facts
    return {name: facts[name] for name in ("hardware", "processors", "accelerators", "onnxruntime") if name in facts}
