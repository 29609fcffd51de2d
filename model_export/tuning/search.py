"""The search: which recipes are tried, in which order, and when it is enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from model_export.errors import MissingLibraryError, QuantizationError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.tuning.choosing import CLEARLY, Choice
from model_export.tuning.judging import loss_of
from model_export.tuning.options import TuneOptions
from model_export.tuning.sensitivity import Sensitivity, computing, node_errors, with_accuracy
from model_export.tuning.space import Space
from model_export.tuning.trials import Trial, with_front
from model_export.tuning.trying import Tries
from model_export.variants.made import computes_fp16, default_recipe
from model_export.variants.maker import Maker
from model_export.variants.recipes import VariantRecipe
from model_export.variants.targets import Target

#: Fused operators make nothing faster by more than this.
FUSING = 1.5
#: Nodes whose accuracy left in float is measured, and the share of the time that it may take.
BLAMED, BLAME_SHARE = 8, 0.25
#: So many suggestions in a row that are no clear gain, as those that were tried before are: more of them seldom
#: are one, and a person waits.
STALE = 6


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
    return _Search(Tries(maker, target, validation, options, on_step)).run()


class _Search:
    def __init__(self, tries: Tries) -> None:
        self.tries, self.choice = tries, Choice(tries)
        self.notes = self.choice.notes
        self.end = time.monotonic() + tries.options.time_limit_s

    def run(self) -> Tuned:
        tries, options = self.tries, self.tries.options
        space = Space.of(tries.maker, tries.target)
        # Where a clock decides, and it is this machine's.
        clocked = options.objective != "size" and options.elsewhere is None
        if clocked and not computes_fp16(tries.target):
            space = space.without("fp16")
        sensitivity: list[Sensitivity] = []
        if not space.kinds:
            self.notes.append(f"nothing to tune for {tries.target.name}: {_why_nothing(tries.maker)}")
            return Tuned(None, tries.baseline, (), (), tuple(self.notes))
        for start in space.usual():
            if self._going_on():
                tries.tried(space.recipe(start))
        if "int8" in space.kinds and self._static_is_too_slow(space):
            self.notes.append(f"static int8 would be slower than what is right already on {tries.target.name}")
            space = space.without("int8")
        if "int8" in space.kinds:
            sensitivity = self._sensitivity()
            weighted = computing(sensitivity, tries.maker.prepared.model)
            space = replace(space, blamed=tuple(found.node for found in weighted[:BLAMED]))
        self._suggest(space)
        if options.elsewhere is not None:
            self.choice.measure_elsewhere(options.elsewhere)
        chosen = self.choice.confirmed()
        trials = with_front(list(tries.trials.values()), options.objective, tries.baseline)
        return Tuned(chosen, tries.baseline, tuple(trials), tuple(sensitivity), tuple(self.notes))

    def _suggest(self, space: Space) -> None:
        tries, options = self.tries, self.tries.options
        try:
            import optuna
        except ImportError as error:
            raise MissingLibraryError("a search needs Optuna", "pip install 'edgeloop[tune]'") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=options.seed))
        starts = space.first()
        for start in starts:
            study.enqueue_trial(start)
        best, stale = 1.0, 0
        while self._going_on() and stale < STALE:
            asked = study.ask()
            recipe = space.suggested(asked)
            # fp32 as it is, which a space with smaller inputs holds too, is what everything is compared with.
            known = tries.baseline if recipe == tries.base.recipe else tries.trials.get(recipe)
            value = self._value(known or tries.tried(recipe))
            study.tell(asked, value)
            stale = 0 if asked.number < len(starts) or value < best * (1 - CLEARLY) else stale + 1
            best = min(best, value)
        if time.monotonic() >= self.end:
            self.notes.append(f"the search for {tries.target.name} ended after {options.time_limit_s:.0f} s")

    def _going_on(self) -> bool:
        return len(self.tries.trials) < self.tries.options.trials and time.monotonic() < self.end

    def _value(self, trial: Trial) -> float:
        """What the sampler minimises: the cost; of what loses too much, more than any cost, by its loss."""
        if trial.why:
            return 10.0 + (trial.loss or 1.0)
        if trial is self.tries.baseline:
            return 1.0
        return min(self.tries.cost(trial), 10.0)

    def _static_is_too_slow(self, space: Space) -> bool:
        """Whether static int8 takes too long however right it could be made, so that no node of it needs to be blamed.

        Calibration, scheme and nodes in float move its latency little; whether operators are fused moves it more.
        """
        tries, options = self.tries, self.tries.options
        best = tries.best()
        if options.objective != "latency" or options.elsewhere is not None or best >= 1:
            return False
        for fused in (False, True) if space.fusable else (False,):
            recipe = replace(default_recipe(tries.target, "int8"), fused=fused)
            tries.on_step(f"timing static int8{' with fused operators' * fused}, right or wrong")
            try:
                variant = tries.variant(recipe)
            except (QuantizationError, UnsupportedModelError):
                continue
            _, told = tries.bench.compare(tries.base, [variant], options.timing_s, best)
            if told.timing is None or told.timing.low <= best:
                return False
            if told.timing.low > best * FUSING:
                break
        return True

    def _sensitivity(self) -> list[Sensitivity]:
        tries, options = self.tries, self.tries.options
        recipe = default_recipe(tries.target, "int8")
        tries.on_step("measuring what int8 does to each node")
        try:
            whole = tries.variant(recipe)
            found = node_errors(tries.maker.prepared.model, whole.model, tries.rows)
        except (QuantizationError, UnsupportedModelError) as error:
            self.notes.append(f"no sensitivity of nodes: {error}")
            return []
        loss = loss_of(tries.right, tries.right_of(whole.outputs, tries.truth))
        if loss.bound <= options.accuracy_drop:
            return found  # nobody is to blame
        until = time.monotonic() + BLAME_SHARE * options.time_limit_s

        def accuracy_without(node: str) -> float | None:
            if time.monotonic() > until:
                return None
            tries.on_step(f"leaving {node} in float")
            try:
                return tries.variant(replace(recipe, excluded=(node,))).metrics.accuracy
            except (QuantizationError, UnsupportedModelError):
                return None

        return with_accuracy(found, accuracy_without, BLAMED)


def _why_nothing(maker: Maker) -> str:
    trees = sorted({n.op_type for n in maker.prepared.model.graph.node if n.op_type.startswith("TreeEnsemble")})
    if trees:
        return (
            f"{trees[0]} holds comparisons and no products, so there is nothing to quantize; it is as small as it gets"
        )
    return "it has no layer besides the head that another precision would make faster or smaller"
