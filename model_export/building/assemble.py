"""From variants to a package on disk that has passed its audit and its own golden cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edgeloop import __version__
from edgeloop.package import Draft, DraftVariant, HeadSpec, OutputSpec, Package, PackageError, TensorSpec, write_package
from edgeloop.package.picture import PictureSpec
from edgeloop.runtime.datatypes import oip_name
from model_export.appearing import appearing
from model_export.building.profile import make_profile
from model_export.data import Table
from model_export.errors import GoldenMismatchError, UnsupportedModelError
from model_export.graphs.graph import Array, needs_of
from model_export.graphs.measure import Metrics, accuracy
from model_export.graphs.probe import Probe
from model_export.prepare import Prepared
from model_export.reading.audited import open_audited
from model_export.reading.verify import check_variants
from model_export.sources import Source
from model_export.variants import golden
from model_export.variants.likeness import KEY, Kept, Recipe, check_alike
from model_export.variants.made import Variant, runs_here

#: Seconds for the golden cases of one variant.
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Parts:
    """All that a package is made of.

    Attributes:
        calibration, validation: row numbers of the data.
        recipe: what was decided, and how.
        picture: how a picture is made small for the model's input, or None.
        base: the package that this one shall be like, or None.
        kept: what it takes over from that one, or None.
        lineage: what others know of where it comes from.
        temperature: what was fitted, and what it is worth; None: none was.
    """

    name: str
    version: str
    source: Source
    table: Table
    prepared: Prepared
    variants: tuple[Variant, ...]
    calibration: Array
    validation: Array
    recipe: Recipe
    picture: PictureSpec | None = None
    base: Package | None = None
    kept: Kept | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    temperature: Mapping[str, Any] | None = None


def write_proven(destination: Path, parts: Parts, on_step: Callable[[str], None]) -> Package:
    """Write a package beside ``destination``, audit it, run its golden cases, and only then give it its name.

    Raises:
        DestinationError: it cannot be written there.
        GoldenMismatchError: a variant does not reproduce its own outputs.
        InvalidPackageError: the audit refuses what was written, which is a defect of this tool.
    """
    draft = _draft(parts)
    return appear_proven(destination, lambda staged: _write(staged, draft), on_step)


def appear_proven(destination: Path, write: Callable[[Path], None], on_step: Callable[[str], None]) -> Package:
    """Let a package appear at ``destination`` once it has passed its audit and its golden cases.

    Args:
        destination: where it shall be; nothing is there yet.
        write: writes it into a folder, which does not exist yet.
        on_step: told what begins.

    Raises:
        DestinationError, GoldenMismatchError, InvalidPackageError: as of `write_proven`.
    """
    with appearing(destination) as staged:
        write(staged)
        failed = [c for c in check_variants(open_audited(staged), DEADLINE_S, on_step) if c.ok is False]
        if failed:
            reasons = "; ".join(f"{check.variant}: {check.reason}" for check in failed)
            raise GoldenMismatchError(f"the package does not reproduce its own outputs: {reasons}", "--precision fp32")
    return Package.open(destination)


def _write(staged: Path, draft: Draft) -> None:
    try:
        write_package(staged, draft)
    except PackageError as error:
        raise UnsupportedModelError(
            f"the model cannot be packaged: {error}", "export it again without what it names"
        ) from error


def _draft(parts: Parts) -> Draft:
    prepared, variants, head = parts.prepared, parts.variants, parts.prepared.head
    rows, truth = prepared.part(parts.validation)
    # The float model says what is normal; int8 differs from it by less than a bin.
    reference = next((variant for variant in variants if variant.precision == "fp32"), variants[0])
    inputs = [TensorSpec(spec.name, oip_name(spec.dtype), (-1, *spec.shape)) for spec in prepared.inputs]
    outputs = [
        OutputSpec(name, oip_name(reference.outputs[name].dtype), (-1, *reference.outputs[name].shape[1:]), role)
        for name, role in prepared.roles.items()
    ]
    if parts.base is not None:
        check_alike(parts.base, inputs, outputs)
    cases, answers = _golden(parts, rows, truth, reference)
    return Draft(
        name=parts.name,
        version=parts.version,
        variants=[_draft_variant(variant) for variant in variants],
        labels=prepared.class_names,
        inputs=inputs,
        outputs=outputs,
        golden_inputs=cases,
        golden_outputs=answers,
        features=None if head is None else head.features,
        head=None if head is None else HeadSpec(head.weight, head.bias, head.activation or "identity", head.transposed),
        profile=make_profile(prepared, rows, reference.outputs, truth, parts.recipe.input_kind),
        validation=_validation(parts, rows, truth),
        metrics={v.name: _metrics(parts, v) for v in variants},
        lineage=_lineage(parts),
        needs=tuple(sorted({need for variant in variants for need in needs_of(variant.model)})),
        picture=parts.picture,
        extra={KEY: parts.recipe.to_json()},
    )


def _draft_variant(variant: Variant) -> DraftVariant:
    target = variant.recipe.made_for
    options = target.provider_options(variant.precision)
    return DraftVariant(variant.name, variant.precision, variant.model, target.ep, target.device, options)


def _validation(
    parts: Parts, rows: Mapping[str, Array], truth: npt.NDArray[np.int64]
) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
    """The validation set that the package carries."""
    if parts.kept is not None and parts.kept.validation is not None:
        return dict(parts.kept.validation[0]), parts.kept.validation[1]
    count = min(parts.recipe.validation_rows, len(truth))
    chosen = np.unique(np.linspace(0, len(truth) - 1, count).astype(np.int64))
    return {name: array[chosen] for name, array in rows.items()}, truth[chosen]


def _golden(
    parts: Parts, rows: Mapping[str, Array], truth: npt.NDArray[np.int64], reference: Variant
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Inputs of the golden cases, and for each precision reference outputs without the features.

    Every release carries its own reference outputs, and wrong features show in the scores that the head makes of them.
    """
    if parts.kept is not None:
        cases = dict(parts.kept.golden_inputs)
        answers = {}
        for v in parts.variants:
            if v.precision not in answers:
                answers[v.precision] = _probe(v).run(cases)
    else:
        chosen = golden.choose_rows(rows, parts.prepared.probabilities(reference.outputs), truth)
        cases = {name: array[chosen] for name, array in rows.items()}
        answers = {}
        for v in parts.variants:
            answers.setdefault(v.precision, {n: a[chosen] for n, a in v.outputs.items()})
    roles = parts.prepared.roles
    return cases, {
        precision: {n: np.ascontiguousarray(a) for n, a in found.items() if roles[n] != "features"}
        for precision, found in answers.items()
    }


def _metrics(parts: Parts, variant: Variant) -> dict[str, float | int]:
    """The accuracy is that on the validation set of the package."""
    measured: Metrics = variant.metrics
    if parts.kept is not None and parts.kept.validation is not None:
        inputs, truth = parts.kept.validation
        measured = replace(measured, accuracy=accuracy(_probe(variant).run(inputs)[parts.prepared.scores], truth))
    metrics = measured.for_package()
    if parts.recipe.reproducible:
        metrics.pop("latency_ms", None)
    return metrics


def _probe(variant: Variant) -> Probe:
    return Probe(variant.model, exact=not runs_here(variant.recipe))


def _lineage(parts: Parts) -> Mapping[str, Any]:
    """Where everything came from, without times: the same input gives the same package."""
    source = parts.source
    quantized = [v.recipe.describe() for v in parts.variants if v.precision in ("int8", "int4")]
    own: dict[str, Any] = {
        "source": {"kind": source.kind, "file": source.file or source.name, "sha256": source.sha256},
        "parent": None if parts.base is None else parts.base.digest,
        "trainer": None,
        "data": {
            "file": parts.table.file,
            "sha256": parts.table.sha256,
            "rows": parts.table.rows,
            "calibration": len(parts.calibration),
            "validation": len(parts.validation),
        },
        "quantization": "; ".join(dict.fromkeys(quantized)) or None,
        "tools": {
            "edgeloop": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            **source.tools,
        },
    }
    if source.parity is not None:
        own["parity"] = _shares(source.parity)
    if parts.temperature is not None:
        own["temperature"] = dict(parts.temperature)
    return own | {name: value for name, value in parts.lineage.items() if own.get(name) is None}


def _shares(parity: Mapping[str, Any]) -> dict[str, Any]:
    """How a model stands to its source, in shares of rows: differences of numbers are others on another processor."""
    told = ("agreeing_rows", "equal_decisions")
    outputs = {
        name: {key: round(output[key], 4) for key in told if output[key] is not None}
        for name, output in parity["outputs"].items()
    }
    return {"how": parity["how"], "rows": parity["rows"], "outputs": outputs}
