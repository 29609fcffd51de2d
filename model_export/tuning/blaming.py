"""Which layers of a package make its int8 less accurate, measured on the validation set that it carries.

The int8 graph is made anew from the package's fp32 variant by its recipe: a third of the validation set shows it the
ranges of the activations, and the rest judges. Nothing of the package changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from edgeloop.package import Package, PackageError
from model_export.data import CALIBRATION_SHARE
from model_export.data.splitting import split
from model_export.errors import InvalidPackageError, QuantizationError, UnsupportedModelError
from model_export.graphs.graph import needs_of
from model_export.graphs.measure import accuracy
from model_export.graphs.probe import Probe
from model_export.reading.audited import open_audited
from model_export.reading.loading import graph_of
from model_export.tuning.sensitivity import Sensitivity, computing, node_errors, with_accuracy
from model_export.variants.likeness import Recipe
from model_export.variants.quantize import quantizable, ranges_of, to_int8
from model_export.variants.recipes import Int8Options

#: Nodes whose accuracy left in float is measured: each costs a model.
NODES = 8


@dataclass(frozen=True)
class Blame:
    """What int8 does to a package's model, and where.

    Attributes:
        int8: how it was quantized.
        rows: that judge.
        accuracy_fp32: on these rows.
        accuracy_int8: on these rows.
        nodes: those that hold weights; where int8 loses accuracy, those first that mend it when they are left in float.
    """

    int8: str
    rows: int
    accuracy_fp32: float
    accuracy_int8: float
    nodes: tuple[Sensitivity, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def told(self) -> str:
        """The answer, in a sentence or two."""
        said = f"int8 ({self.int8}) is right in {self.accuracy_int8:.2%} of {self.rows} rows, fp32 in "
        said += f"{self.accuracy_fp32:.2%}."
        if self.accuracy_int8 >= self.accuracy_fp32:
            return f"{said} No layer makes the accuracy fall."
        best = self.nodes[0]
        if best.accuracy_without is None or best.accuracy_without <= self.accuracy_int8:
            return f"{said} No single layer left in float mends it."
        return f"{said} {best.node} ({best.op}) costs most: left in float, it is {best.accuracy_without:.2%}."


def blame(root: Path, *, nodes: int = NODES, on_step: Callable[[str], None] = lambda text: None) -> Blame:
    """Find the layers that make a package's int8 less accurate than its fp32.

    Args:
        root: the package's folder; nothing of it is run before the audit.
        nodes: most nodes whose accuracy left in float is measured.
        on_step: told what begins.

    Raises:
        InvalidPackageError: it failed its audit, or carries no validation set or no fp32 variant.
        UnsupportedModelError: its graph holds what comes before the model.
        QuantizationError: it has nothing that int8 would speed up, or onnxruntime cannot quantize it.
    """
    on_step("auditing")
    package = open_audited(Path(root))
    model, scores = _float(package)
    inputs, truth = _validation(package)
    shown, judging = split(truth, CALIBRATION_SHARE)
    rows, true = {name: array[judging] for name, array in inputs.items()}, truth[judging]

    def right(made: ModelProto) -> float:
        return accuracy(Probe(made).run(rows)[scores], true)

    options, excluded = _recipe(package)
    on_step("quantizing it anew")
    ranges = ranges_of(model, {name: array[shown] for name, array in inputs.items()}, options.calibration)
    int8 = to_int8(model, ranges, options, excluded)
    on_step("measuring what int8 does to each layer")
    found = computing(node_errors(model, int8, rows), model)
    plain, quantized = right(model), right(int8)

    def without(node: str) -> float | None:
        on_step(f"leaving {node} in float")
        try:
            return right(to_int8(model, ranges, options, (*excluded, node)))
        except QuantizationError:
            return None  # it was the only one

    if quantized < plain:
        found = with_accuracy(found, without, nodes)
    return Blame(options.describe(), len(judging), plain, quantized, tuple(found))


def _float(package: Package) -> tuple[ModelProto, str]:
    """The fp32 graph, and the name of its scores."""
    name = next((name for name, spec in package.variants.items() if spec.precision == "fp32"), None)
    scores = next((s.name for s in package.meta.outputs if s.role in ("probabilities", "logits")), None)
    if name is None or scores is None:
        raise InvalidPackageError(f"{package.name} has no fp32 variant that scores classes", "build it with fp32")
    model = graph_of(package, name)
    if needs_of(model):
        raise UnsupportedModelError(
            "what comes before the model is in its graph, where onnxruntime's quantizer cannot look",
            "build with --tune: it measures the layers before, and the report shows them",
        )
    if not quantizable(model):
        raise QuantizationError("nothing besides the head would run in int8", "no layer can be to blame")
    return model, scores


def _validation(package: Package) -> tuple[dict[str, Any], Any]:
    try:
        found = package.validation()
    except PackageError as error:
        raise InvalidPackageError(f"its validation set cannot be read: {error}") from error
    if found is None or not len(found[1]):
        raise InvalidPackageError(f"{package.name} carries no validation set", "ask for it on the package as built")
    return dict(found[0]), np.asarray(found[1])


def _recipe(package: Package) -> tuple[Int8Options, tuple[str, ...]]:
    """How the package's own int8 was quantized, and what it leaves in float; the usual where it has none like that."""
    recipe = Recipe.of(package)
    for made in recipe.variants:
        if made.int8 is not None and not made.int8.dynamic and not made.fused and made.input_scale == 1:
            return made.int8, made.excluded
    return recipe.int8, ()
