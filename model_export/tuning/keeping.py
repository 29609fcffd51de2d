"""What a search has made and measured, kept by content: one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, replace
from typing import Any

import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import ModelProto

from edgeloop import __version__
from edgeloop.runtime.fingerprint import take
from model_export.cache import Cache
from model_export.graph import Array
from model_export.making import Maker
from model_export.prepare import Prepared
from model_export.recipes import VariantRecipe
from model_export.tuning.trials import Trial


@dataclass(frozen=True)
class Keeping:
    """Graphs and trials of one model and its data.

    Attributes:
        cache: where they are kept; one without a folder keeps nothing.
        content: digest of what graphs follow from, beside their recipe.
        measured: digest of what trials follow from as well: rows, machine, objective.
    """

    cache: Cache
    content: str
    measured: str = ""

    @classmethod
    def of(cls, cache: Cache, prepared: Prepared, calibration: Array) -> Keeping:
        """What follows from a model and its calibration rows."""
        content = hashlib.sha256(prepared.model.SerializeToString(deterministic=True))
        for name, array in sorted(prepared.rows.items()):
            content.update(f"{name} {array.dtype} {array.shape}".encode())
            content.update(array[calibration].tobytes())
        content.update(f"{__version__} {onnx.__version__} {onnxruntime.__version__}".encode())
        return cls(cache, content.hexdigest())

    def about(self, target: str, options: Any, rows: Array) -> Keeping:
        """What was measured here, of these rows, under these options."""
        # More trials or more time do not make those that were made worth less.
        judged = [options.objective, options.accuracy_drop, options.timing_s]
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        return replace(self, measured=_key(self.content, target, judged, digest, _machine()))

    def graph(self, recipe: VariantRecipe, maker: Maker) -> ModelProto:
        """The graph of a recipe, made unless it is kept.

        Raises:
            QuantizationError: the precision cannot be had.
            UnsupportedModelError: fusion or a smaller input cannot be had.
        """
        key = _key(self.content, recipe.to_json())
        kept = self.cache.read("variant", key)
        if kept is not None:
            try:
                found = ModelProto()
                found.ParseFromString(kept)
                return found
            except DecodeError:
                pass  # damaged before it was kept: made anew
        model = maker.graph(recipe)
        self.cache.write("variant", key, model.SerializeToString(deterministic=True))
        return model

    def trial(self, recipe: VariantRecipe) -> Trial | None:
        """A trial that was made before."""
        kept = self.cache.read("trial", _key(self.measured, recipe.to_json()))
        try:
            return None if kept is None else Trial.from_json(json.loads(kept))
        except (ValueError, TypeError, KeyError):
            return None  # of another version: made anew

    def keep(self, trial: Trial) -> None:
        """Keep a trial."""
        key = _key(self.measured, trial.recipe.to_json())
        self.cache.write("trial", key, json.dumps(trial.to_json()).encode())


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _machine() -> str:
    return f"{platform.node()} {take({}).digest}"
