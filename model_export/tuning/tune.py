"""A search for every target that this machine has, the usual recipe for the others, and the file that tells of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.runtime import available_providers
from model_export.caching.cache import Cache
from model_export.errors import DestinationError
from model_export.graphs.graph import Array
from model_export.graphs.opsets import Limits
from model_export.prepare import Prepared
from model_export.tuning.options import TuneOptions
from model_export.tuning.search import Tuned, search
from model_export.variants.made import default_recipe, runs_here
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int8Options, VariantRecipe
from model_export.variants.targets import CPU, target_of


@dataclass(frozen=True)
class Tuning:
    """What came out of a tuned build.

    Attributes:
        options: what was looked for.
        targets: what was searched, by the target's name.
        recipes: of the variants that the package shall carry, fp32 last.
        notes: what the person should know.
    """

    options: TuneOptions
    targets: dict[str, Tuned]
    recipes: tuple[VariantRecipe, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The tuning file: of the first target that was searched; the others beside it under ``targets``."""
        told = {name: _told(tuned) for name, tuned in self.targets.items()}
        nothing: dict[str, Any] = {"baseline": None, "trials": [], "sensitivity": []}
        first = next(iter(told.values()), nothing)
        return {
            "objective": self.options.objective,
            "accuracy_drop": self.options.accuracy_drop,
            **first,
            "chosen": [recipe.name for recipe in self.recipes],
            "recipes": [recipe.to_json() for recipe in self.recipes],
            "targets": told,
        }


def tune(
    prepared: Prepared,
    calibration: Array,
    validation: Array,
    targets: Sequence[str],
    options: TuneOptions,
    *,
    int8: Int8Options | None = None,
    cache: Cache | None = None,
    limits: Limits | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> Tuning:
    """Search for each target that can be measured here.

    Args:
        prepared: the float model.
        calibration: row numbers that show int8 the ranges of the activations.
        validation: row numbers on which variants are judged.
        targets: names; those that this machine lacks get their usual recipe.
        options: what is looked for.
        int8: how to quantize for targets that are not searched.
        cache: where trials and graphs are kept; None: nowhere.
        limits: what the oldest runtime that shall read the variants can read; None: they are for this one.
        on_step: told what is tried.

    Raises:
        MissingLibraryError: Optuna is not there.
    """
    maker = Maker(prepared, prepared.part(calibration)[0], cache or Cache(None), limits)
    plain = VariantRecipe("fp32")
    searched: dict[str, Tuned] = {}
    recipes: list[VariantRecipe] = []
    notes: list[str] = []
    for name in targets:
        target = target_of(name)
        usual = default_recipe(target, target.default, int8)
        if not (runs_here(usual) or (target.ep != CPU and target.ep in available_providers())):
            notes.append(f"{name} is not tuned, since this machine has none: it gets the usual {target.default}")
            recipes.append(usual)
            continue
        found = searched[name] = search(maker, target, validation, options, on_step)
        notes += found.notes
        if found.chosen is not None:
            recipes.append(found.chosen)
    return Tuning(options, searched, (*dict.fromkeys(recipes), plain), tuple(notes))


def path_of(package: Path) -> Path:
    """Where the tuning file of a package lies: beside it, and no part of it."""
    return package.with_name(f"{package.name}.tuning.json")


def write(package: Path, tuning: Tuning) -> None:
    """Write the tuning file beside a package.

    Raises:
        DestinationError: it cannot be written.
    """
    try:
        path_of(package).write_text(json.dumps(tuning.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{path_of(package)} cannot be written: {error.strerror}", "free space") from error


def _told(tuned: Tuned) -> dict[str, Any]:
    return {
        "baseline": tuned.baseline.to_json(),
        "trials": [trial.to_json() for trial in tuned.trials],
        "sensitivity": [found.to_json() for found in tuned.sensitivity],
    }
