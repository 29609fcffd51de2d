"""Making a package: the main verb of the tool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.insights.calibrating import FEWEST_ROWS
from edgeloop.insights.forms import Kind
from edgeloop.package import Package
from model_export import processing as around
from model_export.building import finished, temperature
from model_export.building.assemble import Parts, write_proven
from model_export.building.build_report import BuildReport
from model_export.building.converting import opened
from model_export.building.inputs import Inputs, read
from model_export.building.request import Request, safe_name
from model_export.caching.cache import Cache
from model_export.data import CALIBRATION_SHARE, VALIDATION_ROWS, parts_of
from model_export.graphs.graph import Array
from model_export.graphs.opsets import within
from model_export.prepare import Prepared, prepare
from model_export.sources import Source, open_source, parity
from model_export.sources.capping import capped
from model_export.trust import provenance
from model_export.trust.provenance import Licences
from model_export.tuning import tune as tuning
from model_export.tuning.options import TuneOptions
from model_export.variants.likeness import Kept, Recipe
from model_export.variants.made import MAX_LOSS, Made, make_variants
from model_export.variants.recipes import Int8Options

Told = Callable[[str], None]


def build(
    source: object,
    destination: str | Path,
    data: str | Path,
    *,
    labels: Sequence[str] | None = None,
    label_column: str | None = None,
    precision: Sequence[str] | None = None,
    targets: Sequence[str] = ("cpu",),
    name: str | None = None,
    version: str = "1.0.0",
    trust_source: bool = False,
    roles: Mapping[str, str] | None = None,
    calibration_share: float = CALIBRATION_SHARE,
    int8: Int8Options | None = None,
    max_loss: float = MAX_LOSS,
    validation_rows: int = VALIDATION_ROWS,
    reproducible: bool = False,
    input_kind: Kind | None = None,
    processing: str | Path | None = None,
    fit_temperature: bool = False,
    min_runtime: str | None = None,
    licences: Licences | None = None,
    like: str | Path | None = None,
    lineage: Mapping[str, Any] | None = None,
    tune: TuneOptions | None = None,
    cache: Cache | None = None,
    on_step: Told = lambda text: None,
) -> BuildReport:
    """Make a package from a trained classifier and labelled data; it appears whole, audited and tested, or not at all.

    Its bill of materials and its provenance, still without a signature, appear beside it.

    Args:
        source: a path, ``module:factory``, or an object: a fitted scikit-learn classifier, a booster, a
            ``torch.nn.Module`` or an ``onnx.ModelProto``.
        destination: folder of the package; must not exist.
        data: labelled examples that the model was not trained on.
        labels: names of the classes; None: the source's own, else their indices.
        label_column: array or column with the true label; None: found by its name.
        precision: of ``fp32``, ``fp16``, ``bf16``, ``int8`` and ``int4``; None: fp32, and int8 where it is possible and
            good enough.
        targets: what variants are made for: names in `model_export.variants.targets.TARGETS`.
        name: of the package; None: the source's.
        version: of the package.
        trust_source: whether a pickle may be loaded, which runs the code in it.
        roles: of outputs, where they are not clear.
        calibration_share: of the data, for int8.
        int8: how to quantize.
        max_loss: share of accuracy that int8 may lose.
        validation_rows: most rows of the validation set in the package.
        reproducible: leave measured latency out of the package.
        input_kind: what insights take the first input for: ``numbers``, ``image``, ``tokens`` or ``text``; None: found.
        processing: TOML file with what comes before and after the model; None: found in a source's folder.
        fit_temperature: divide the scores by the number that makes the calibration rows likeliest.
        min_runtime: the oldest ONNX Runtime that shall read the package, such as ``1.17``; None: this one.
        licences: of model and data, for the bill of materials.
        like: folder of a package: this one gets its name, labels, recipe, golden inputs and validation set, whatever
            else is given; and it has to have its inputs and outputs.
        lineage: what the package's lineage tells besides: of what this tool says nothing, who trained it and why.
        tune: what variants a search shall look for, which loses no more than its accuracy drop; None: no search.
        cache: of what earlier builds have made; None: nothing is kept.
        on_step: told what begins.

    Raises:
        ExportError: one of `model_export.errors`, by who is at fault.
    """
    inputs = read(Request.of(locals()), on_step)
    cache, started = cache or Cache(None), time.time()
    on_step("converting the model")
    found = opened(source, cache, inputs.opening(), lambda: _converted(inputs, on_step))
    key = inputs.key(found)
    if (before := finished.restore(cache, key, inputs.request.destination, on_step)) is not None:
        package, report = before
    else:
        package, report = _made(inputs, found, cache, on_step)
        finished.keep(cache, key, report)
    told = provenance.describe(package, inputs.asked(package), started, licences or Licences())
    provenance.write(report.path, told)
    return report


def _converted(inputs: Inputs, on_step: Told) -> Source:
    """The source as ONNX that the oldest runtime reads, and that gives what the source itself gives."""
    request, limits, table = inputs.request, inputs.limits, inputs.table
    opset = None if limits is None else limits.opset
    found = open_source(request.source, table, trust_source=request.trust_source, opset=opset)
    on_step("comparing it with its source")
    found = found if limits is None else capped(found, table, limits)
    same = parity.check(found, table)
    return replace(around.recent_enough(found, inputs.declared), parity=None if same is None else same.as_dict())


def _made(inputs: Inputs, source: Source, cache: Cache, on_step: Told) -> tuple[Package, BuildReport]:
    """The package of an open source, written and proven."""
    on_step("bringing the graph into its canonical form")
    prepared = prepare(source, inputs.table, labels=inputs.labels, given=inputs.recipe.roles, cache=cache)
    calibration, validation = parts_of(inputs.table, prepared.truth, inputs.recipe.calibration_share)
    output, tempered = inputs.declared.output, None
    if output.fit_temperature:
        on_step("fitting a temperature")
        tempered = temperature.fit(prepared, calibration, validation)
        output = replace(output, fit_temperature=False, temperature=tempered.temperature)
    prepared = around.with_output(prepared, output)
    recipe, made, searched = _variants(inputs, prepared, calibration, validation, cache, on_step)
    prepared, variants = around.put_around(inputs.declared, prepared, made.variants, inputs.raw, validation)
    if (limits := inputs.limits) is not None:
        variants = [replace(variant, model=within(variant.model, limits)) for variant in variants]
    parts = Parts(
        name=inputs.name or safe_name(source.name),
        version=inputs.request.version,
        source=source,
        table=inputs.table,
        prepared=prepared,
        variants=tuple(variants),
        calibration=calibration,
        validation=validation,
        recipe=recipe,
        picture=inputs.declared.picture,
        base=inputs.base,
        kept=None if inputs.base is None else Kept.of(inputs.base),
        lineage=inputs.request.lineage or {},
        temperature=None if tempered is None else tempered.as_dict(),
    )
    on_step("writing and testing the package")
    package = write_proven(inputs.request.destination, parts, on_step)
    if searched is not None:
        tuning.write(inputs.request.destination, searched)
    report = BuildReport(
        path=inputs.request.destination,
        name=package.name,
        version=package.version,
        digest=package.digest,
        bytes=sum(entry.size for entry in package.index.entries),
        metrics={variant.name: variant.metrics for variant in variants},
        head=prepared.head is not None,
        labels=prepared.class_names,
        lineage=dict(package.meta.lineage),
        notes=(*prepared.notes, *(() if tempered is None else (tempered.told(),)), *made.notes, *_too_few(validation)),
        parity=source.parity,
        temperature=parts.temperature,
        tuning=None if searched is None else searched.to_json(),
    )
    return package, report


def _variants(
    inputs: Inputs, prepared: Prepared, calibration: Array, validation: Array, cache: Cache, on_step: Told
) -> tuple[Recipe, Made, tuning.Tuning | None]:
    """The variants, the recipe by which a build like this one makes them again, and what a search has tried."""
    recipe, options = inputs.recipe, inputs.request.tune
    searched = None
    if options is not None:
        searched = tuning.tune(
            prepared,
            calibration,
            validation,
            recipe.targets,
            options,
            int8=recipe.int8,
            cache=cache,
            limits=inputs.limits,
            on_step=on_step,
        )
        recipe = replace(recipe, variants=searched.recipes)
    on_step("making and measuring variants")
    rules = recipe.rules(by_clock=not recipe.reproducible)
    made = make_variants(prepared, calibration, validation, rules, cache, inputs.limits)
    if searched is not None:
        made = replace(made, notes=(*searched.notes, *made.notes))
    if made.by_clock or searched is not None:
        recipe = replace(recipe, variants=tuple(variant.recipe for variant in made.variants))
    return recipe, made, searched


def _too_few(validation: Array) -> tuple[str, ...]:
    if len(validation) >= FEWEST_ROWS:
        return ()
    return (
        f"{len(validation)} validation rows are too few for a calibration, so nothing says the accuracy before "
        f"labels do; give data of which {FEWEST_ROWS} rows validate",
    )
