"""The search: recipes are made, judged on part of the rows, then on half of them, then timed; what wins is confirmed.

Cheap questions come before expensive ones. A trial that loses too much on a quarter of the rows is not run on the rest,
one that loses too much is not timed, and timing ends as soon as it is surely slower than the best so far.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from model_export.errors import ExportError, MissingLibraryError, QuantizationError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.measure import Metrics, accuracy, non_finite, size_of
from model_export.graphs.probe import Probe
from model_export.tuning.bench import CLOSE, Bench, named
from model_export.tuning.elsewhere import Elsewhere
from model_export.tuning.judging import Loss, halves, loss_of, rows_needed
from model_export.tuning.remembering import Remembered
from model_export.tuning.sensitivity import Sensitivity, computing, node_errors, with_accuracy
from model_export.tuning.space import Space
from model_export.tuning.trials import Objective, Trial, with_front
from model_export.variants.made import Variant, computes_fp16, default_recipe, one_reference, runs_here
from model_export.variants.maker import Maker
from model_export.variants.recipes import VariantRecipe
from model_export.variants.targets import Target

#: Every so many-th row is looked at first.
FIRST_LOOK = 4
#: A trial has to cost this share less than fp32 to be worth a variant; candidates this close to one another are equal,
#: and the smaller one wins.
CLEARLY = CLOSE
#: A trial that surely costs so many times what the best so far does, or fp32, is not timed any longer.
HOPELESS = 1.1
#: The best are timed against one another for so many times as long as one trial.
PLAY_OFF = 2
#: One that was timed apart, and cost so many times what the best did, cannot be better than it beside it.
APART = 1.25
#: Fused operators make nothing faster by more than this.
FUSING = 1.5
#: Candidates that may try to confirm. Each further look at the same rows makes a lucky one likelier.
LOOKS = 5
#: Candidates that another machine is asked to time.
SHORTLIST = 12
#: Nodes whose accuracy left in float is measured, and the share of the time that it may take.
BLAMED, BLAME_SHARE = 8, 0.25
#: So many suggestions in a row that are no clear gain, as those that were tried before are: more of them seldom
#: are one, and a person waits.
STALE = 6


@dataclass(frozen=True)
class TuneOptions:
    """What is looked for, and how long.

    Attributes:
        objective: what shall be least.
        accuracy_drop: share of accuracy that a variant may lose against fp32.
        trials: at most, for each target that is measured.
        time_limit_s: for each target that is measured; what runs then is finished.
        seed: of the sampler.
        timing_s: seconds of timing for one trial, fp32's turns included.
        elsewhere: measures the best candidates on another machine, which then decides; None: this one does.
        name: of the model, by which a hub knows who may ask that of a device.
    """

    objective: Objective = "latency"
    accuracy_drop: float = 0.01
    trials: int = 40
    time_limit_s: float = 300.0
    seed: int = 0
    timing_s: float = 1.5
    elsewhere: Elsewhere | None = None
    name: str = "trial"


@dataclass(frozen=True)
class Tuned:
    """What a search found for one target.

    Attributes:
        chosen: the recipe; None where nothing beats fp32.
        baseline: fp32, as a trial.
        trials: in their order, the front marked.
        sensitivity: of the nodes, worst first; empty where int8 is no choice.
        notes: what the person should know.
    """

    chosen: VariantRecipe | None
    baseline: Trial
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]
    notes: tuple[str, ...]


def search(
    maker: Maker,
    target: Target,
    validation: Array,
    options: TuneOptions,
    on_step: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Look for the best recipe for a target that this machine has.

    Args:
        maker: of the model; its cache also keeps the trials.
        target: for which.
        validation: row numbers of the validation set.
        options: what is looked for.
        on_step: told what is tried.

    Raises:
        MissingLibraryError: Optuna is not there.
    """
    return _Search(maker, target, validation, options, on_step).run()


@dataclass(eq=False)
class _Search:
    maker: Maker
    target: Target
    validation: Array
    options: TuneOptions
    on_step: Callable[[str], None]
    trials: dict[VariantRecipe, Trial] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        prepared = self.maker.prepared
        self.end = time.monotonic() + self.options.time_limit_s
        choosing, confirming = halves(self.validation, prepared.truth[self.validation])
        self.rows, self.truth = prepared.part(choosing)
        self.unseen, self.unseen_truth = prepared.part(confirming)
        model = self.maker.graph(VariantRecipe("fp32"))
        self.base = self._variant(VariantRecipe("fp32"), model, self.rows, self.truth)
        self.right = self._right(self.base.outputs, self.truth)
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

    def run(self) -> Tuned:
        space = Space.of(self.maker, self.target)
        clocked = self.options.objective != "size" and self.options.elsewhere is None  # here, and it decides
        if clocked and not computes_fp16(self.target):
            space = space.without("fp16")
        sensitivity: list[Sensitivity] = []
        if not space.kinds:
            self.notes.append(f"nothing to tune for {self.target.name}: {_why_nothing(self.maker)}")
            return Tuned(None, self.baseline, (), (), tuple(self.notes))
        for start in space.usual():
            if self._going_on():
                self._tried(space.recipe(start))
        if "int8" in space.kinds and self._static_is_too_slow(space):
            self.notes.append(f"static int8 would be slower than what is right already on {self.target.name}")
            space = space.without("int8")
        if "int8" in space.kinds:
            sensitivity = self._sensitivity()
            weighted = computing(sensitivity, self.maker.prepared.model)
            space = replace(space, blamed=tuple(found.node for found in weighted[:BLAMED]))
        self._suggest(space)
        if self.options.elsewhere is not None:
            self._measure_elsewhere(self.options.elsewhere)
        chosen = self._confirmed()
        trials = with_front(list(self.trials.values()), self.options.objective, self.baseline)
        return Tuned(chosen, self.baseline, tuple(trials), tuple(sensitivity), tuple(self.notes))

    # ── which recipes ────────────────────────────────────────────────────────────────────────────

    def _suggest(self, space: Space) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingLibraryError("a search needs Optuna", "pip install 'edgeloop[tune]'") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.options.seed))
        starts = space.first()
        for start in starts:
            study.enqueue_trial(start)
        best, stale = 1.0, 0
        while self._going_on() and stale < STALE:
            asked = study.ask()
            recipe = space.suggested(asked)
            # fp32 as it is, which a space with smaller inputs holds too, is what everything is compared with.
            known = self.baseline if recipe == self.base.recipe else self.trials.get(recipe)
            value = self._value(known or self._tried(recipe))
            study.tell(asked, value)
            stale = 0 if asked.number < len(starts) or value < best * (1 - CLEARLY) else stale + 1
            best = min(best, value)
        if time.monotonic() >= self.end:
            self.notes.append(f"the search for {self.target.name} ended after {self.options.time_limit_s:.0f} s")

    def _going_on(self) -> bool:
        return len(self.trials) < self.options.trials and time.monotonic() < self.end

    def _value(self, trial: Trial) -> float:
        """What the sampler minimises: the cost; of what loses too much, more than any cost, by its loss."""
        if trial.why:
            return 10.0 + (trial.loss or 1.0)
        if trial is self.baseline:
            return 1.0
        return min(self._cost(trial), 10.0)

    def _cost(self, trial: Trial) -> float:
        return trial.cost(self.options.objective, self.base.metrics.size_bytes)

    # ── one trial ────────────────────────────────────────────────────────────────────────────────

    def _tried(self, recipe: VariantRecipe) -> Trial:
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
        early = loss_of(self.right[some], self._right(first, self.truth[some]))
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
        variant = self._judged(recipe, model, outputs, self.truth)
        loss = loss_of(self.right, self._right(outputs, self.truth))
        trial = Trial(
            recipe,
            accuracy=variant.metrics.accuracy,
            loss=loss.value,
            bound=loss.bound,
            size_bytes=variant.metrics.size_bytes,
        )
        if loss.bound > self.options.accuracy_drop:
            return replace(trial, why=self._too_lossy(loss))
        return self._timed(trial, variant)

    def _too_lossy(self, loss: Loss) -> str:
        told = f"it loses {loss.value:.3f} of accuracy, and up to {loss.bound:.3f} by {loss.rows} rows"
        if loss.value <= 0:
            told += f"; with {rows_needed(self.options.accuracy_drop)} validation rows it could be proven good enough"
        return told

    def _timed(self, trial: Trial, variant: Variant) -> Trial:
        hopeless = self._best() * HOPELESS if self.options.objective == "latency" else math.inf
        first, second = self.bench.compare(self.base, [variant], self.options.timing_s, hopeless)
        trial = trial.timed(first, second)
        self._remember_baseline(trial, first.memory_bytes)
        return trial

    def _best(self) -> float:
        """The least cost so far of what is right, fp32 included."""
        return min([1.0, *(self._cost(other) for other in self.trials.values() if not other.why)])

    def _static_is_too_slow(self, space: Space) -> bool:
        """Whether static int8 takes too long however right it could be made, so that no node of it needs to be blamed.

        Calibration, scheme and nodes in float move its latency little; whether operators are fused moves it more.
        """
        best = self._best()
        if self.options.objective != "latency" or self.options.elsewhere is not None or best >= 1:
            return False
        for fused in (False, True) if space.fusable else (False,):
            recipe = replace(default_recipe(self.target, "int8"), fused=fused)
            self.on_step(f"timing static int8{' with fused operators' * fused}, right or wrong")
            try:
                variant = self._variant(recipe, self.maker.graph(recipe), self.rows, self.truth)
            except (QuantizationError, UnsupportedModelError):
                continue
            _, told = self.bench.compare(self.base, [variant], self.options.timing_s, best)
            if told.timing is None or told.timing.low <= best:
                return False
            if told.timing.low > best * FUSING:
                break
        return True

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

    def _measure_elsewhere(self, elsewhere: Elsewhere) -> None:
        """Let another machine time what is right and was best here; what it did not time is out of the running."""
        able = sorted((trial for trial in self.trials.values() if not trial.why), key=self._cost)
        made = [
            self._variant(trial.recipe, self.maker.graph(trial.recipe), self.rows, self.truth)
            for trial in able[:SHORTLIST]
        ]
        # A device has one reference for each precision, and turns down what differs from it.
        kept, _ = one_reference(self.maker.prepared, self.base, made, self.rows, self.truth)
        candidates = named(kept)
        with tempfile.TemporaryDirectory(prefix="edgeloop-trial-") as folder:
            package = self.bench.package(Path(folder) / "package", {"baseline": self.base, **candidates})
            figures = elsewhere(package)
        plain = figures.get("baseline")
        found = {variant.recipe: figures[name] for name, variant in candidates.items() if name in figures}
        if plain is not None:
            self.baseline = replace(self.baseline, latency_ms=plain.median_ms, memory_bytes=plain.memory_bytes)
        for trial in able:
            figure = found.get(trial.recipe)
            if figure is None or plain is None:
                self.trials[trial.recipe] = replace(trial, why="the device has not measured it, or it is wrong there")
                continue
            ratio = figure.median_ms / plain.median_ms
            self.trials[trial.recipe] = replace(
                trial,
                latency_ms=figure.median_ms,
                baseline_ms=plain.median_ms,
                ratio=ratio,
                ratio_high=ratio,
                memory_bytes=figure.memory_bytes,
            )

    # ── the choice ───────────────────────────────────────────────────────────────────────────────

    def _confirmed(self) -> VariantRecipe | None:
        """The best one that also holds on rows that no trial has seen; of those about as good, the smallest."""
        worth = self._played_off(self._ranked()[:LOOKS])
        plain = Probe(self.base.model).run(self.unseen)
        right = self._right(plain, self.unseen_truth)
        good: list[Trial] = []
        for trial in worth:
            if good and self._cost(trial) > self._cost(good[0]) * (1 + CLEARLY):
                break
            self.on_step(f"confirming {trial.name} on {len(self.unseen_truth)} rows that no trial has seen")
            model = self.maker.graph(trial.recipe)
            outputs = Probe(model, exact=not runs_here(trial.recipe)).run(self.unseen)
            loss = loss_of(right, self._right(outputs, self.unseen_truth))
            if loss.bound <= self.options.accuracy_drop:
                good.append(trial)
            else:
                why = f"on rows that it was not chosen by, {self._too_lossy(loss)}"
                self.trials[trial.recipe] = replace(trial, why=why)
        if not good:
            self._say_why_nothing(worth)
            return None
        return min(good, key=lambda trial: (trial.size_bytes or 0, self._cost(trial))).recipe

    def _ranked(self) -> list[Trial]:
        worth = (trial for trial in self.trials.values() if not trial.why and self._worth(trial))
        return sorted(worth, key=lambda trial: (self._cost(trial), trial.size_bytes or 0))

    def _played_off(self, best: list[Trial]) -> list[Trial]:
        """The best, timed once more and all in turn: the first of many that were timed apart is partly the luckiest."""
        close = [trial for trial in best if self._cost(trial) <= self._cost(best[0]) * APART]
        if self.options.objective == "size" or self.options.elsewhere is not None or len(close) < 2:
            return best
        self.on_step(f"timing the best {len(close)} against one another")
        variants = [self._variant(t.recipe, self.maker.graph(t.recipe), self.rows, self.truth) for t in close]
        first, *others = self.bench.compare(self.base, variants, self.options.timing_s * PLAY_OFF)
        for trial, told in zip(close, others, strict=True):
            self.trials[trial.recipe] = trial.timed(first, told)
        again = {trial.recipe for trial in best}
        return [trial for trial in self._ranked() if trial.recipe in again]

    def _worth(self, trial: Trial) -> bool:
        """Whether it clearly costs less than fp32."""
        return trial.surely_less(self.options.objective) and self._cost(trial) < 1 - CLEARLY

    def _say_why_nothing(self, worth: Sequence[Trial]) -> None:
        told = f"nothing is better than fp32 in {self.options.objective} on {self.target.name}"
        needed = rows_needed(self.options.accuracy_drop)
        if len(self.validation) < needed:
            told += (
                f": {len(self.validation)} validation rows cannot show that a variant loses no more than "
                f"{self.options.accuracy_drop:g}; give {needed}, or allow more with --accuracy-drop"
            )
        elif worth:
            told += f" and loses no more than {self.options.accuracy_drop:g} on rows that no trial has seen"
        self.notes.append(told)

    # ── what int8 harms ──────────────────────────────────────────────────────────────────────────

    def _sensitivity(self) -> list[Sensitivity]:
        recipe = default_recipe(self.target, "int8")
        self.on_step("measuring what int8 does to each node")
        try:
            model = self.maker.graph(recipe)
            found = node_errors(self.maker.prepared.model, model, self.rows)
        except (QuantizationError, UnsupportedModelError) as error:
            self.notes.append(f"no sensitivity of nodes: {error}")
            return []
        whole = self._variant(recipe, model, self.rows, self.truth)
        loss = loss_of(self.right, self._right(whole.outputs, self.truth))
        if loss.bound <= self.options.accuracy_drop:
            return found  # nobody is to blame
        until = time.monotonic() + BLAME_SHARE * self.options.time_limit_s

        def accuracy_without(node: str) -> float | None:
            if time.monotonic() > until:
                return None
            self.on_step(f"leaving {node} in float")
            try:
                without = self.maker.graph(replace(recipe, excluded=(node,)))
                return self._variant(recipe, without, self.rows, self.truth).metrics.accuracy
            except (QuantizationError, UnsupportedModelError):
                return None

        return with_accuracy(found, accuracy_without, BLAMED)

    def _variant(
        self, recipe: VariantRecipe, model: ModelProto, rows: Mapping[str, Array], truth: npt.NDArray[np.int64]
    ) -> Variant:
        outputs = Probe(model, exact=not runs_here(recipe)).run(rows)
        return self._judged(recipe, model, _finite(outputs), truth)

    def _judged(
        self, recipe: VariantRecipe, model: ModelProto, outputs: dict[str, Array], truth: npt.NDArray[np.int64]
    ) -> Variant:
        metrics = Metrics(accuracy(outputs[self.maker.prepared.scores], truth), size_of(model), None)
        return Variant(recipe, model, outputs, metrics)

    def _right(self, outputs: Mapping[str, Array], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
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


def _why_nothing(maker: Maker) -> str:
    trees = sorted({n.op_type for n in maker.prepared.model.graph.node if n.op_type.startswith("TreeEnsemble")})
    if trees:
        return (
            f"{trees[0]} holds comparisons and no products, so there is nothing to quantize; it is as small as it gets"
        )
    return "it has no layer besides the head that another precision would make faster or smaller"
