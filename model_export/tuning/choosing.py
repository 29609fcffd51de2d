"""Which of a search's trials wins: timed beside those that are about as good, and right on rows that none has seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from model_export.graphs.probe import Probe
from model_export.tuning.bench import CLOSE, named
from model_export.tuning.elsewhere import Elsewhere
from model_export.tuning.judging import loss_of, rows_needed
from model_export.tuning.trials import Trial
from model_export.tuning.trying import Tries
from model_export.variants.made import one_reference, runs_here
from model_export.variants.recipes import VariantRecipe

#: A trial has to cost this share less than fp32 to be worth a variant; candidates this close to one another are equal,
#: and the smaller one wins.
CLEARLY = CLOSE
#: The best are timed against one another for so many times as long as one trial.
PLAY_OFF = 2
#: Candidates that may try to confirm. Each further look at the same rows makes a lucky one likelier.
LOOKS = 5
#: Candidates that another machine is asked to time.
SHORTLIST = 12


@dataclass
class Choice:
    """The end of a search.

    Attributes:
        tries: what was tried; a trial that falls out here says why.
        notes: what the person should know.
    """

    tries: Tries
    notes: list[str] = field(default_factory=list)

    def confirmed(self) -> VariantRecipe | None:
        """The best one that also holds on rows that no trial has seen; of those about as good, the smallest."""
        tries = self.tries
        worth = self._played_off(self._ranked()[:LOOKS])
        plain = Probe(tries.base.model).run(tries.unseen)
        right = tries.right_of(plain, tries.unseen_truth)
        good: list[Trial] = []
        for trial in worth:
            if good and tries.cost(trial) > tries.cost(good[0]) * (1 + CLEARLY):
                break
            tries.on_step(f"confirming {trial.name} on {len(tries.unseen_truth)} rows that no trial has seen")
            model = tries.maker.graph(trial.recipe)
            outputs = Probe(model, exact=not runs_here(trial.recipe)).run(tries.unseen)
            loss = loss_of(right, tries.right_of(outputs, tries.unseen_truth))
            if loss.bound <= tries.options.accuracy_drop:
                good.append(trial)
            else:
                why = f"on rows that it was not chosen by, {tries.too_lossy(loss)}"
                tries.trials[trial.recipe] = replace(trial, why=why)
        if not good:
            self._say_why_nothing(worth)
            return None
        return min(good, key=lambda trial: (trial.size_bytes or 0, tries.cost(trial))).recipe

    def _ranked(self) -> list[Trial]:
        worth = (trial for trial in self.tries.trials.values() if not trial.why and self._worth(trial))
        return sorted(worth, key=lambda trial: (self.tries.cost(trial), trial.size_bytes or 0))

    def _played_off(self, best: list[Trial]) -> list[Trial]:
        """The best, timed once more and all in turn: the first of many that were timed apart is partly the luckiest."""
        tries, options = self.tries, self.tries.options
        if options.objective == "size" or options.elsewhere is not None or len(best) < 2:
            return best
        tries.on_step(f"timing the best {len(best)} against one another")
        variants = [tries.variant(trial.recipe) for trial in best]
        first, *others = tries.bench.compare(tries.base, variants, options.timing_s * PLAY_OFF)
        for trial, told in zip(best, others, strict=True):
            tries.trials[trial.recipe] = trial.timed(first, told)
        again = {trial.recipe for trial in best}
        return [trial for trial in self._ranked() if trial.recipe in again]

    def _worth(self, trial: Trial) -> bool:
        """Whether it clearly costs less than fp32."""
        return trial.surely_less(self.tries.options.objective) and self.tries.cost(trial) < 1 - CLEARLY

    def _say_why_nothing(self, worth: Sequence[Trial]) -> None:
        tries, options = self.tries, self.tries.options
        told = f"nothing is better than fp32 in {options.objective} on {tries.target.name}"
        needed = rows_needed(options.accuracy_drop)
        if len(tries.validation) < needed:
            told += (
                f": {len(tries.validation)} validation rows cannot show that a variant loses no more than "
                f"{options.accuracy_drop:g}; give {needed}, or allow more with --accuracy-drop"
            )
        elif worth:
            told += f" and loses no more than {options.accuracy_drop:g} on rows that no trial has seen"
        self.notes.append(told)

    def measure_elsewhere(self, elsewhere: Elsewhere) -> None:
        """Let another machine time what is right and was best here; what it did not time is out of the running."""
        tries = self.tries
        able = sorted((trial for trial in tries.trials.values() if not trial.why), key=tries.cost)
        made = [tries.variant(trial.recipe) for trial in able[:SHORTLIST]]
        # A device has one reference for each precision, and turns down what differs from it.
        kept, _ = one_reference(tries.maker.prepared, tries.base, made, tries.rows, tries.truth)
        candidates = named(kept)
        with tempfile.TemporaryDirectory(prefix="edgeloop-trial-") as folder:
            package = tries.bench.package(Path(folder) / "package", {"baseline": tries.base, **candidates})
            figures = elsewhere(package)
        plain = figures.get("baseline")
        found = {variant.recipe: figures[name] for name, variant in candidates.items() if name in figures}
        if plain is not None:
            tries.baseline = replace(tries.baseline, latency_ms=plain.median_ms, memory_bytes=plain.memory_bytes)
        for trial in able:
            figure = found.get(trial.recipe)
            if figure is None or plain is None:
                tries.trials[trial.recipe] = replace(trial, why="the device has not measured it, or it is wrong there")
                continue
            ratio = figure.median_ms / plain.median_ms
            tries.trials[trial.recipe] = replace(
                trial,
                latency_ms=figure.median_ms,
                baseline_ms=plain.median_ms,
                ratio=ratio,
                ratio_high=ratio,
                memory_bytes=figure.memory_bytes,
            )
