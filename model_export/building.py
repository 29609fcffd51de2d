"""Making a package: the main verb of the tool."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.insights.calibrating import FEWEST_ROWS
from edgeloop.insights.forms import Kind
from edgeloop.package import Package
from model_export import data as tables
from model_export import finished, provenance
from model_export import processing as around
from model_export.assemble import Parts, write_proven
from model_export.audited import open_audited
from model_export.build_report import BuildReport
from model_export.cache import Cache
from model_export.content_keys import plain
from model_export.converting import opened
from model_export.data import CALIBRATION_SHARE, VALIDATION_ROWS
from model_export.errors import DestinationError, RequestError
from model_export.graph import Array
from model_export.likeness import KEY, Kept, Recipe
from model_export.opsets import Limits, limits_of, within
from model_export.prepare import Prepared, prepare
from model_export.recipes import Int8Options, one_of
from model_export.sources import Source, open_source, parity
from model_export.sources.capping import capped
from model_export.targets import PRECISIONS, target_of
from model_export.tuning.search import TuneOptions
from model_export.tuning.tune import Tuning
from model_export.tuning.tune import tune as search
from model_export.tuning.tune import write as write_tuning
from model_export.variants import MAX_LOSS, Made, Variant, make_variants

#: Options that do not change the package, or whose content is a part of its key already.
BESIDES = ("source", "destination", "data", "trust_source", "licences", "cache", "on_step")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


def build(
    source: object,
    destination: Path,
    data: Path,
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
    processing: Path | None = None,
    min_runtime: str | None = None,
    licences: provenance.Licences | None = None,
    like: Path | None = None,
    lineage: Mapping[str, Any] | None = None,
    tune: TuneOptions | None = None,
    cache: Cache | None = None,
    on_step: Callable[[str], None] = lambda text: None,
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
        targets: what variants are made for: names in `model_export.targets.TARGETS`.
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
    request = {option: value for option, value in locals().items() if option not in BESIDES}
    destination, cache = Path(destination), cache or Cache(None)
    check_request(destination, precision, targets, name, version)
    started = time.time()
    recipe = Recipe(
        precision=None if precision is None else tuple(map(one_of(PRECISIONS), precision)),
        targets=tuple(targets),
        int8=int8 or Int8Options(),
        max_loss=max_loss if tune is None else tune.accuracy_drop,
        calibration_share=calibration_share,
        validation_rows=validation_rows,
        roles=roles or {},
        input_kind=input_kind,
        reproducible=reproducible,
        min_runtime=min_runtime,
    )
    base = None
    if like is not None:
        on_step("reading the package that it shall be like")
        base = open_audited(Path(like))
        request["like"] = base.digest
        # Without a measured latency the same data give the same package, whenever and wherever it is built.
        name, labels, recipe = base.name, base.meta.labels, replace(Recipe.of(base), reproducible=True)
    limits = None if recipe.min_runtime is None else limits_of(recipe.min_runtime)
    on_step("reading data")
    table = tables.read_table(Path(data), label_column)
    declared = around.declared(source, processing, table, base)
    request["processing"] = declared
    recipe = replace(recipe, processing=declared.to_json())
    raw, table = around.applied(declared, table)
    on_step("converting the model")

    def convert() -> Source:
        return _converted(source, table, declared, limits, trust_source, on_step)

    asked = {**request, "trust_source": trust_source, "min_runtime": recipe.min_runtime}
    found = opened(source, cache, decides(table, declared, asked), convert)

    def describe(package: Package) -> None:
        asked = {
            "labels": None if labels is None else list(labels),
            "label_column": label_column,
            "name": name,
            "version": version,
            "trust_source": trust_source,
            "like": None if base is None else base.digest,
            **package.meta.extra[KEY],
            "int8": recipe.int8.describe(),
        }
        told = provenance.describe(package, asked, started, licences or provenance.Licences())
        provenance.write(destination, told)

    key = finished.key_for(request, found, table)
    if (before := finished.restore(cache, key, destination, on_step)) is not None:
        describe(before[0])
        return before[1]
    on_step("bringing the graph into its canonical form")
    prepared = prepare(found, table, labels=labels, given=recipe.roles, cache=cache)
    prepared = around.with_output(prepared, declared.output)
    calibration, validation = tables.parts_of(table, prepared.truth, recipe.calibration_share)
    recipe, made, tuning = _variants(prepared, calibration, validation, recipe, tune, cache, on_step)
    notes = [*made.notes]
    prepared, variants = around.put_around(declared, prepared, made.variants, raw, validation)
    parts = Parts(
        name=name or _safe_name(found.name),
        version=version,
        source=found,
        table=table,
        prepared=prepared,
        variants=tuple(variants if limits is None else _readable(variants, limits)),
        calibration=calibration,
        validation=validation,
        recipe=recipe,
        picture=declared.picture,
        base=base,
        kept=None if base is None else Kept.of(base),
        lineage=lineage or {},
    )
    if len(validation) < FEWEST_ROWS:
        notes.append(
            f"{len(validation)} validation rows are too few for a calibration, so nothing says the accuracy before "
            f"labels do; give data of which {FEWEST_ROWS} rows validate"
        )
    on_step("writing and testing the package")
    package = write_proven(destination, parts, on_step)
    if tuning is not None:
        write_tuning(destination, tuning)
    describe(package)
    report = BuildReport(
        path=destination,
        name=package.name,
        version=package.version,
        digest=package.digest,
        bytes=sum(entry.size for entry in package.index.entries),
        metrics={variant.name: variant.metrics for variant in variants},
        head=prepared.head is not None,
        labels=prepared.class_names,
        lineage=dict(package.meta.lineage),
        notes=(*prepared.notes, *notes),
        parity=found.parity,
        tuning=None if tuning is None else tuning.to_json(),
    )
    finished.keep(cache, key, report)
    return report


def _converted(
    source: object,
    table: tables.Table,
    declared: around.Processing,
    limits: Limits | None,
    trust_source: bool,
    on_step: Callable[[str], None],
) -> Source:
    """The source as ONNX that the oldest runtime reads, and that gives what the source itself gives."""
    found = open_source(source, table, trust_source=trust_source, opset=None if limits is None else limits.opset)
    on_step("comparing it with its source")
    found = found if limits is None else capped(found, table, limits)
    same = parity.check(found, table)
    return replace(around.recent_enough(found, declared), parity=None if same is None else same.as_dict())


def _readable(variants: Sequence[Variant], limits: Limits) -> list[Variant]:
    return [replace(variant, model=within(variant.model, limits)) for variant in variants]


def _variants(
    prepared: Prepared,
    calibration: Array,
    validation: Array,
    recipe: Recipe,
    tune: TuneOptions | None,
    cache: Cache,
    on_step: Callable[[str], None],
) -> tuple[Recipe, Made, Tuning | None]:
    """The variants, the recipe by which a build like this one makes them again, and what a search has tried."""
    tuning = None
    if tune is not None:
        tuning = search(
            prepared, calibration, validation, recipe.targets, tune, int8=recipe.int8, cache=cache, on_step=on_step
        )
        recipe = replace(recipe, variants=tuning.recipes)
    on_step("making and measuring variants")
    made = make_variants(prepared, calibration, validation, recipe.rules(by_clock=not recipe.reproducible), cache)
    if tuning is not None:
        made = replace(made, notes=(*tuning.notes, *made.notes))
    if made.by_clock or tuning is not None:
        recipe = replace(recipe, variants=tuple(variant.recipe for variant in made.variants))
    return recipe, made, tuning


def decides(table: tables.Table, declared: around.Processing, options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how a source is opened, besides the source: an exporter traces it with rows of the data."""
    told = {name: options[name] for name in ("label_column", "trust_source", "min_runtime")}
    return {"data": table.sha256, "processing": plain(declared), **told}


def check_request(
    destination: Path, precision: Sequence[str] | None, targets: Sequence[str], name: str | None, version: str
) -> None:
    """Everything that can be refused before work begins."""
    if destination.exists() or destination.is_symlink():
        raise DestinationError(f"{destination} exists already", "choose another folder, or remove it first")
    if not destination.parent.is_dir():
        raise DestinationError(f"there is no folder {destination.parent}", "make it first")
    unknown = [p for p in precision or () if p not in PRECISIONS]
    if unknown or (precision is not None and not precision):
        raise RequestError(f"precision {', '.join(unknown) or '(none)'} is not known", f"use {', '.join(PRECISIONS)}")
    if not targets:
        raise RequestError("no target is named", "leave --target out for cpu")
    for target in targets:
        target_of(target)
    for what, text in (("name", name), ("version", version)):
        if text is not None and not _NAME.fullmatch(text):
            raise RequestError(f"{what} {text!r} is not usable", "use letters, digits and . _ + -, 64 at most")


def _safe_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", text).lstrip("-._+")[:64] or "model"
