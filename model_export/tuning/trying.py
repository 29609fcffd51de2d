"""One recipe tried: made, judged on part of the rows, then on half of them, then timed beside fp32.

Cheap questions come before expensive ones. A trial that loses too much on a quarter of the rows is not run on the rest,
one that loses too much is not timed, and timing ends as soon as it is surely slower than the best so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from model_export.errors import ExportError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.measure import Metrics, accuracy, non_finite, size_of
from model_export.graphs.probe import Probe
from model_export.tuning.bench import Bench
from model_export.tuning.judging import Loss, halves, loss_of, rows_needed
from model_export.tuning.options import TuneOptions
from model_export.tuning.remembering import Remembered
from model_export.tuning.trials import Trial
from model_export.variants.made import Variant, runs_here
from model_export.variants.maker import Maker
from model_export.variants.recipes import VariantRecipe
from model_export.variants.targets import Target

#: Every so many-th row is looked at first.
FIRST_LOOK = 4
#: A trial that surely costs so many times what the best so far does, or fp32, is not timed any longer.
HOPELESS = 1.1


@dataclass(eq=False)
class Tries:
    """The trials of one search.

    Attributes:
        maker: of the model; its cache also keeps the trials.
        target: for which.
        validation: row numbers of the validation set.
        options: what is looked for.
        on_step: told what is tried.
        trials: by recipe, in their order.
        rows: on which a search chooses, and ``truth``, their classes; ``unseen`` and ``unseen_truth`` are for the end.
        base: fp32; ``baseline`` is the same as a trial.
        bench: where trials are timed.
    """

    maker: Maker
    target: Target
    validation: Array
    options: TuneOptions
    on_step: Callable[[str], None]
    trials: dict[VariantRecipe, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prepared = self.maker.prepared
        choosing, confirming = halves(self.validation, prepared.truth[self.validation])
        self.rows, self.truth = prepared.part(choosing)
        self.unseen, self.unseen_truth = prepared.part(confirming)
        self.base = self.variant(VariantRecipe("fp32"))
        self.right = self.right_of(self.base.outputs, self.truth)
        self.baseline = Trial(
            self.base.recipe,
            accuracy=self.base.metrics.accuracy,
            loss=0.0,
            bound=0.0,
            size_bytes=self.base.metrics.size_bytes,
        )
        self.bench = Bench(prepared, self.rows, self.options.name)
        about = {
            "model": prepared.model,
            "calibration": self.maker.calibration,
            "rows": self.rows,
            "truth": self.truth,
            "target": self.target.name,
            "min_runtime": None if self.maker.limits is None else self.maker.limits.runtime,
            # More trials or more time do not make those that were made worth less.
            "options": [self.options.objective, self.options.accuracy_drop, self.options.timing_s],
        }
        self.remembered = Remembered(self.maker.cache, about)

    def tried(self, recipe: VariantRecipe) -> Trial:
        """Try a recipe, if it was not tried before."""
        known = self.remembered.get(recipe)
        if known is not None:
            self._remember_baseline(known, None)
            self.trials[recipe] = known
            return known
        self.on_step(f"trial {len(self.trials) + 1}: {recipe.name} ({recipe.describe()})")
        start = time.monotonic()
        try:
            trial = self._measured(recipe)
        except ExportError as error:
            trial = Trial(recipe, why=str(error))
        trial = replace(trial, seconds=round(time.monotonic() - start, 3))
        self.trials[recipe] = trial
        self.remembered.keep(trial)
        return trial

    def _measured(self, recipe: VariantRecipe) -> Trial:
        model = self.maker.graph(recipe)
        probe = Probe(model, exact=not runs_here(recipe))
        some = np.arange(len(self.truth)) % FIRST_LOOK == 0
        first = _finite(probe.run({name: array[some] for name, array in self.rows.items()}))
        early = loss_of(self.right[some], self.right_of(first, self.truth[some]))
        if early.least > self.options.accuracy_drop:
            return Trial(
                recipe,
                accuracy=accuracy(first[self.maker.prepared.scores], self.truth[some]),
                loss=early.value,
                bound=early.bound,
                size_bytes=size_of(model),
                why=f"it loses {early.value:.3f} of accuracy on the first {early.rows} rows",
            )
        others = _finite(probe.run({name: array[~some] for name, array in self.rows.items()}))
        outputs = {name: _put_together(some, first[name], others[name]) for name in first}
        variant = self._judged(recipe, model, outputs)
        loss = loss_of(self.right, self.right_of(outputs, self.truth))
        trial = Trial(
            recipe,
            accuracy=variant.metrics.accuracy,
            loss=loss.value,
            bound=loss.bound,
            size_bytes=variant.metrics.size_bytes,
        )
        if loss.bound > self.options.accuracy_drop:
            return replace(trial, why=self.too_lossy(loss))
        return self._timed(trial, variant)

    def too_lossy(self, loss: Loss) -> str:
        """Why a loss is more than is allowed."""
        told = f"it loses {loss.value:.3f} of accuracy, and up to {loss.bound:.3f} by {loss.rows} rows"
        if loss.value <= 0:
            told += f"; with {rows_needed(self.options.accuracy_drop)} validation rows it could be proven good enough"
        return told

    def _timed(self, trial: Trial, variant: Variant) -> Trial:
        hopeless = self.best() * HOPELESS if self.options.objective == "latency" else math.inf
        first, second = self.bench.compare(self.base, [variant], self.options.timing_s, hopeless)
        trial = trial.timed(first, second)
        self._remember_baseline(trial, first.memory_bytes)
        return trial

    def best(self) -> float:
        """The least cost so far of what is right, fp32 included."""
        return min([1.0, *(self.cost(other) for other in self.trials.values() if not other.why)])

    def cost(self, trial: Trial) -> float:
        """Of a trial, as a share of what fp32 costs."""
        return trial.cost(self.options.objective, self.base.metrics.size_bytes)

    def _remember_baseline(self, trial: Trial, memory_bytes: int | None) -> None:
        """What fp32 took beside the first trial that was timed."""
        if self.baseline.latency_ms is None and trial.baseline_ms is not None:
            self.baseline = replace(
                self.baseline,
                latency_ms=trial.baseline_ms,
                baseline_ms=trial.baseline_ms,
                ratio=1.0,
                ratio_high=1.0,
                cpu_ms=trial.baseline_cpu_ms,
                baseline_cpu_ms=trial.baseline_cpu_ms,
                energy_mj=trial.baseline_energy_mj,
                baseline_energy_mj=trial.baseline_energy_mj,
                energy_high=1.0,
                memory_bytes=memory_bytes,
            )

    def variant(self, recipe: VariantRecipe) -> Variant:
        """A variant, with what it answers on the rows that a search chooses by.

        Raises:
            QuantizationError: it cannot be made.
            UnsupportedModelError: it does not run, or gives numbers that are not finite.
        """
        model = self.maker.graph(recipe)
        return self._judged(recipe, model, _finite(Probe(model, exact=not runs_here(recipe)).run(self.rows)))

    def _judged(self, recipe: VariantRecipe, model: ModelProto, outputs: dict[str, Array]) -> Variant:
        metrics = Metrics(accuracy(outputs[self.maker.prepared.scores], self.truth), size_of(model), None)
        return Variant(recipe, model, outputs, metrics)

    def right_of(self, outputs: Mapping[str, Array], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some outputs name the right class."""
        return np.asarray(outputs[self.maker.prepared.scores].argmax(axis=1) == truth)


def _finite(outputs: dict[str, Array]) -> dict[str, Array]:
    if bad := non_finite(outputs):
        raise UnsupportedModelError(f"output {bad[0]} has numbers that are not finite")
    return outputs


def _put_together(mask: npt.NDArray[np.bool_], inside: Array, outside: Array) -> Array:
    """The rows of a mask and the others, in their order."""
    whole = np.empty((len(mask), *inside.shape[1:]), inside.dtype)
    whole[mask], whole[~mask] = inside, outside
    return whole
