"""From a recipe to a graph: what several variants of one model need is found once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onnx import ModelProto

from model_export.caching.cache import Cache
from model_export.caching.keeping import kept_model
from model_export.errors import QuantizationError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.opsets import Limits, too_new, within
from model_export.prepare import Prepared
from model_export.variants.fourbit import to_int4
from model_export.variants.fusing import fused
from model_export.variants.half import to_half
from model_export.variants.quantize import quantizable, ranges_of, to_int8
from model_export.variants.recipes import Calibration, Int8Options, VariantRecipe
from model_export.variants.shrinking import shrunk


@dataclass(eq=False)
class Maker:
    """Makes graphs of one model.

    Attributes:
        prepared: the model.
        calibration: rows [N, …] by input that show int8 the ranges of the activations.
        cache: of graphs that were made before.
        limits: what the oldest runtime that shall read the graphs can read; None: they are for this one.
    """

    prepared: Prepared
    calibration: Mapping[str, Array]
    cache: Cache = field(default_factory=lambda: Cache(None))
    limits: Limits | None = None
    _ranges: dict[tuple[bool, float, Calibration], Any] = field(default_factory=dict)

    def graph(self, recipe: VariantRecipe) -> ModelProto:
        """The graph that a recipe makes; of fp32 as it is, the model itself.

        Raises:
            QuantizationError: the precision cannot be had.
            UnsupportedModelError: fusion or a smaller input cannot be had, or the oldest runtime does not read it.
        """
        made = self.prepared.model
        if recipe != VariantRecipe("fp32"):
            parts = {"model": self.prepared.model, "calibration": self.calibration, "recipe": recipe.to_json()}
            made = kept_model(self.cache, "graph", parts, lambda: self._made(recipe))
        return made if self.limits is None else within(made, self.limits)

    def _made(self, recipe: VariantRecipe) -> ModelProto:
        model = self.float_graph(recipe.fused, recipe.input_scale)
        if recipe.int8 is not None:
            model = self._int8(model, recipe, recipe.int8)
        elif recipe.int4 is not None:
            model = to_int4(model, recipe.int4, recipe.excluded)
        elif recipe.precision == "fp16":
            model = to_half(model, recipe.excluded)
        return _one_row(model) if recipe.made_for.fixed_shapes else model

    @cached_property
    def fusable(self) -> bool:
        """Whether anything can be fused that is then read."""
        try:
            made = self._fused
        except UnsupportedModelError:
            return False
        return made is not None and (self.limits is None or not too_new(made, self.limits))

    @property
    def four_bits(self) -> bool:
        """Whether int4 is read."""
        return self.limits is None or "MatMulNBits" in self.limits.own

    @cached_property
    def _fused(self) -> ModelProto | None:
        return fused(self.prepared.model, self.prepared.head is not None)

    def float_graph(self, is_fused: bool, scale: float) -> ModelProto:
        """What a precision starts from.

        Raises:
            UnsupportedModelError: fusion or a smaller input cannot be had.
        """
        model = self._fused if is_fused else self.prepared.model
        if model is None:
            raise UnsupportedModelError("it has no attention, Gelu or layer norm that could be fused")
        return model if scale == 1.0 else shrunk(model, self.prepared.inputs, scale)

    def ranges(self, recipe: VariantRecipe, method: Calibration) -> Any:
        """Ranges of the activations of a recipe's float graph, for `model_export.variants.quantize.to_int8`.

        Raises:
            QuantizationError: onnxruntime's calibration failed.
        """
        key = (recipe.fused, recipe.input_scale, method)
        if key not in self._ranges:
            model = self.float_graph(recipe.fused, recipe.input_scale)
            self._ranges[key] = ranges_of(model, self.calibration, method)
        return self._ranges[key]

    def _int8(self, model: ModelProto, recipe: VariantRecipe, options: Int8Options) -> ModelProto:
        if not quantizable(self.prepared.model):
            raise QuantizationError("nothing besides the head would run in int8", "use --precision fp32")
        ranges = {} if options.dynamic else self.ranges(recipe, options.calibration)
        return to_int8(model, ranges, options, recipe.excluded)


def _one_row(model: ModelProto) -> ModelProto:
    """The graph with its batch fixed to one row; what else varies cannot be fixed by us.

    Raises:
        UnsupportedModelError: another dimension varies.
    """
    model = ModelProto.FromString(model.SerializeToString())
    for value in (*model.graph.input, *model.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        first.dim_value = 1
        if value.name in {v.name for v in model.graph.input} and any(not dim.dim_value for dim in others):
            raise UnsupportedModelError(
                f"input {value.name} has a length that varies, and this target takes fixed shapes alone",
                "export the model with fixed lengths",
            )
    del model.graph.value_info[:]
    return model
