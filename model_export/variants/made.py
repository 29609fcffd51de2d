"""The variants of a package: a graph for each recipe, run once on the validation rows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from edgeloop.runtime.golden import judge
from model_export.caching.cache import Cache
from model_export.caching.keeping import kept_arrays
from model_export.errors import ExportError, QuantizationError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.measure import Metrics, accuracy, non_finite, size_of
from model_export.graphs.opsets import Limits
from model_export.graphs.probe import Probe, timed
from model_export.prepare import Prepared
from model_export.variants import golden
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int4Options, Int8Options, VariantRecipe
from model_export.variants.targets import CPU, Precision, Target, target_of

#: A default variant that loses more accuracy than this is left out.
MAX_LOSS = 0.03
#: A default int8 is left out where it is surely slower than this share of fp32's time, and by more than so many ms.
#: Wide, so that the same machine decides alike every time; what is closer is a note, and the device's own choice.
SLOWER, BY_MS = 1.1, 0.1


@dataclass(frozen=True)
class Variant:
    """A graph, what it gives on the validation rows, and what it is worth."""

    recipe: VariantRecipe
    model: ModelProto
    outputs: Mapping[str, Array]
    metrics: Metrics

    @property
    def name(self) -> str:
        """``<target>-<precision>``."""
        return self.recipe.name

    @property
    def precision(self) -> Precision:
        """Of its weights and activations."""
        return self.recipe.precision


@dataclass(frozen=True)
class Rules:
    """What decides about the variants of a build without a search.

    Attributes:
        recipes: of the variants, those that ONNX Runtime alone shall try first in front.
        max_loss: share of accuracy that a variant may lose against fp32.
        named: whether a person named them: then what cannot be had is an error, and otherwise a note.
        by_clock: whether a variant that nobody named is left out for being slower. Builds that have to give the same
            bytes on every machine let no clock decide.
    """

    recipes: tuple[VariantRecipe, ...]
    max_loss: float = MAX_LOSS
    named: bool = False
    by_clock: bool = True


def default_recipe(target: Target, precision: Precision, int8: Int8Options | None = None) -> VariantRecipe:
    """The usual recipe of a precision for a target.

    Args:
        target: what it is for.
        precision: of it.
        int8: how to quantize for the CPU; for others their own constraints decide.

    Raises:
        RequestError: the target does not compute in it.
    """
    options = int8 or Int8Options()
    if target.name != "cpu":
        scheme = options.scheme if options.scheme in target.schemes else target.schemes[0]
        options = replace(
            options,
            scheme=scheme,
            # QNN takes scales per tensor from every version on.
            per_channel=not target.fixed_shapes,
            symmetric=target.symmetric and scheme != "s8s8",
            reduce_range=None,
        )
    if options.reduce_range is None:
        options = replace(options, reduce_range=target.overflows(options.scheme))
    return VariantRecipe(
        precision,
        target.name,
        int8=options if precision == "int8" else None,
        int4=Int4Options() if precision == "int4" else None,
    )


def runs_here(recipe: VariantRecipe) -> bool:
    """Whether this machine computes a variant as its target does, so that a measurement says something."""
    target = target_of(recipe.target)
    if target.ep != CPU:
        return False
    if target.name == "cpu-arm64":
        return platform.machine().lower() in ("arm64", "aarch64")
    return target.name != "cpu-vnni" or has_vnni()


@dataclass(frozen=True)
class Made:
    """Variants, and how it came to them.

    Attributes:
        variants: those that ONNX Runtime alone shall try first in front.
        notes: what was left out, and what to know of the others.
        by_clock: whether a measured time has left one out: then the next build like this one has to be told.
    """

    variants: tuple[Variant, ...]
    notes: tuple[str, ...]
    by_clock: bool = False


def make_variants(
    prepared: Prepared,
    calibration: Array,
    validation: Array,
    rules: Rules,
    cache: Cache | None = None,
    limits: Limits | None = None,
) -> Made:
    """One variant a recipe; what cannot be had, or is not worth it, is left out with a note.

    Args:
        prepared: the float model.
        calibration: row numbers that show int8 the ranges of the activations.
        validation: row numbers on which variants are measured.
        rules: which, and what they may lose.
        cache: of graphs and outputs that were made before; None: nothing is kept.
        limits: what the oldest runtime that shall read the variants can read; None: they are for this one.

    Raises:
        QuantizationError: a variant was named, and cannot be made or loses too much.
        UnsupportedModelError: a variant was named, and the oldest runtime does not read it.
    """
    maker = Maker(prepared, prepared.part(calibration)[0], cache or Cache(None), limits)
    rows, truth = prepared.part(validation)
    plain = VariantRecipe("fp32")
    base = measured(maker, plain, rows, truth)
    found: list[Variant] = []
    notes: list[str] = []
    for recipe in rules.recipes:
        try:
            variant = base if recipe == plain else measured(maker, recipe, rows, truth)
            loss = base.metrics.accuracy - variant.metrics.accuracy
            if loss > rules.max_loss:
                raise QuantizationError(
                    f"{variant.precision} loses {loss:.3f} of accuracy "
                    f"({base.metrics.accuracy:.3f} → {variant.metrics.accuracy:.3f})",
                    "try --tune, --calibration percentile or --int8-scheme u8u8, allow it with --max-loss, "
                    "or use --precision fp32",
                )
            found.append(variant)
        except (QuantizationError, UnsupportedModelError) as error:
            if rules.named:
                raise
            notes.append(f"no {_told(recipe)} variant: {_sentence(error)}")
    agreeing, apart = one_reference(prepared, base, found or [base], rows, truth)
    kept, slow = _with_latency(base, agreeing, rows, by_clock=rules.by_clock and not rules.named)
    unmeasured = [variant.name for variant in kept if not runs_here(variant.recipe)]
    if unmeasured:
        notes.append(f"latency of {', '.join(unmeasured)} is not measured: this machine has no such target")
    notes += [_overflowing(variant) for variant in kept if _may_overflow(variant.recipe)]
    return Made(tuple(kept), (*notes, *apart, *slow), by_clock=len(kept) < len(agreeing))


def _may_overflow(recipe: VariantRecipe) -> bool:
    int8 = recipe.int8
    return int8 is not None and not int8.reduce_range and target_of(recipe.target).overflows(int8.scheme)


def _overflowing(variant: Variant) -> str:
    return (
        f"{variant.name} has weights of 8 bits: x86 processors with and without VNNI may compute it differently, and "
        "those that do refuse it; use --reduce-range, or --target cpu-vnni for those that have it"
    )


def measured(maker: Maker, recipe: VariantRecipe, rows: Mapping[str, Array], truth: npt.NDArray[np.int64]) -> Variant:
    """A variant with its accuracy and size.

    Raises:
        QuantizationError: it cannot be made.
        UnsupportedModelError: it does not run, or gives numbers that are not finite.
    """
    model = maker.graph(recipe)
    exact = not runs_here(recipe)
    parts = {"model": model, "rows": rows, "exact": exact}
    outputs = kept_arrays(maker.cache, "outputs", parts, lambda: Probe(model, exact=exact).run(rows))
    bad = non_finite(outputs)
    if bad:
        raise UnsupportedModelError(f"output {bad[0]} of the {recipe.name} variant has numbers that are not finite")
    metrics = Metrics(accuracy(outputs[maker.prepared.scores], truth), size_of(model), None)
    return Variant(recipe, model, outputs, metrics)


def one_reference(
    prepared: Prepared,
    base: Variant,
    variants: Sequence[Variant],
    rows: Mapping[str, Array],
    truth: npt.NDArray[np.int64],
) -> tuple[list[Variant], list[str]]:
    """The variants that agree with the first of their precision: a device has one reference for each precision.

    Args:
        prepared: the float model.
        base: the fp32 variant as it is, the reference of its precision.
        variants: in their order.
        rows: of the validation set.
        truth: their classes.

    Returns:
        Those that agree, and a note for each other one.
    """
    chosen = golden.choose_rows(rows, prepared.probabilities(base.outputs), truth)
    references = {base.precision: base}
    kept, notes = [], []
    for variant in variants:
        first = references.setdefault(variant.precision, variant)
        roles = {name: role for name, role in prepared.roles.items() if role != "features"}
        expected, found = ({name: v.outputs[name][chosen] for name in roles} for v in (first, variant))
        report = judge(variant.precision, roles, expected, found)
        if report.ok:
            kept.append(variant)
        else:
            notes.append(f"no {variant.name} variant: it differs too much from {first.name} ({report.reason})")
    return kept, notes


def _with_latency(
    base: Variant, variants: Sequence[Variant], rows: Mapping[str, Array], *, by_clock: bool
) -> tuple[list[Variant], list[str]]:
    """The variants with what this machine needs for them, in turn with fp32, and notes about slow ones."""
    here = [variant for variant in variants if runs_here(variant.recipe) and variant is not base]
    timings = timed([base.model, *(variant.model for variant in here)], rows)
    at = {id(variant): timing for variant, timing in zip((base, *here), timings, strict=True)}
    found, notes = [], []
    for variant in variants:
        timing = at.get(id(variant))
        if timing is None:
            found.append(variant)
            continue
        slower = timing.median_ms - timings[0].median_ms
        told = (
            f"it takes {timing.ratio:.1f} times as long as fp32 here "
            f"({timings[0].median_ms:.3g} → {timing.median_ms:.3g} ms)"
        )
        if timing.low > SLOWER and slower > BY_MS:
            if by_clock and len(variants) > 1:
                notes.append(f"no {_told(variant.recipe)} variant: {told}; --tune looks for a faster one")
                continue
            notes.append(f"{variant.name} is slow: {told}; devices choose by their own measurement")
        found.append(replace(variant, metrics=replace(variant.metrics, latency_ms=timing.median_ms)))
    return found, notes


def _told(recipe: VariantRecipe) -> str:
    return recipe.precision if recipe.target == "cpu" else recipe.name


def _sentence(error: ExportError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


def computes_fp16(target: Target) -> bool:
    """Whether fp16 is computed as such: ONNX Runtime's CPU does on Arm alone, and turns it into fp32 elsewhere."""
    return target.ep != CPU or platform.machine().lower() in ("arm64", "aarch64")


def has_vnni() -> bool:
    """Whether an x86 processor multiplies bytes with sums of 32 bits."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags.split())
