"""Trials of a search, kept by all that decides them: one that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from model_export.caching.cache import Cache
from model_export.caching.content_keys import key_of
from model_export.caching.keeping import content_key
from model_export.tuning.trials import Trial
from model_export.variants.recipes import VariantRecipe

STEP = "trial"


class Remembered:
    """Trials of one model, its data, an objective and this machine."""

    def __init__(self, cache: Cache, parts: Mapping[str, Any]) -> None:
        """Nothing is read yet.

        Args:
            cache: where they are; one without a folder keeps nothing.
            parts: what decides a trial besides its recipe: models, arrays by name, JSON values.
        """
        self._cache = cache
        self._about = content_key(cache, STEP, parts)

    def get(self, recipe: VariantRecipe) -> Trial | None:
        """A trial that was made before."""
        kept = None if self._about is None else self._cache.read(STEP, self._key(recipe))
        try:
            return None if kept is None else Trial.from_json(json.loads(kept))
        except (ValueError, TypeError, KeyError):
            return None  # written by another version: made anew

    def keep(self, trial: Trial) -> None:
        """Keep a trial."""
        if self._about is not None:
            self._cache.write(STEP, self._key(trial.recipe), json.dumps(trial.to_json()).encode())

    def _key(self, recipe: VariantRecipe) -> str:
        return key_of(STEP, about=self._about, recipe=recipe.to_json())
