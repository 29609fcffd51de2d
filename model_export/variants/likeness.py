"""A package like another one: built by the same recipe, of the same name, with the same promises to its callers.

The recipe stands in the metadata of every package, beside the lineage rather than in it: a new head, which writes the
lineage anew, leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights.forms import KINDS, Kind
from edgeloop.package import OutputSpec, Package, PackageError, TensorSpec
from model_export.data import CALIBRATION_SHARE, VALIDATION_ROWS
from model_export.errors import InvalidPackageError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.roles import ROLES
from model_export.variants.made import MAX_LOSS, Rules, default_recipe
from model_export.variants.recipes import Int8Options, VariantRecipe, one_of
from model_export.variants.targets import PRECISIONS, TARGETS, Precision

#: Where it stands in ``additional_metadata.edgeloop``.
KEY = "recipe"
#: ONNX Runtime alone takes the first variant that fits a provider, so small ones come first.
SMALL_FIRST: tuple[Precision, ...] = ("int8", "int4", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Recipe:
    """What a person decided when a package was built; see `model_export.building.build`.

    Attributes:
        precision: of the variants; None: what is possible and good enough.
        int8: how to quantize.
        max_loss: share of accuracy that int8 may lose.
        calibration_share: of the data.
        validation_rows: most rows of the validation set.
        roles: of outputs.
        input_kind: what insights take the first input for.
        processing: what comes before and after the model, as JSON types; a vocabulary is in the graph instead.
        reproducible: whether measured latency is left out.
        targets: what variants are made for.
        min_runtime: the oldest ONNX Runtime that shall read the package; None: the one that built it.
        variants: what a search or a clock has chosen; empty: what follows from the others.
    """

    precision: tuple[Precision, ...] | None = None
    int8: Int8Options = field(default_factory=Int8Options)
    max_loss: float = MAX_LOSS
    calibration_share: float = CALIBRATION_SHARE
    validation_rows: int = VALIDATION_ROWS
    roles: Mapping[str, str] = field(default_factory=dict)
    input_kind: Kind | None = None
    processing: Mapping[str, Any] = field(default_factory=dict)
    reproducible: bool = False
    targets: tuple[str, ...] = ("cpu",)
    min_runtime: str | None = None
    variants: tuple[VariantRecipe, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it; without what was left open: devices fetch a manifest with every new head."""
        told = {
            "precision": None if self.precision is None else list(self.precision),
            "targets": None if self.targets == ("cpu",) else list(self.targets),
            "variants": [variant.to_json() for variant in self.variants] or None,
            "int8": self.int8.to_json(),
            "max_loss": self.max_loss,
            "calibration_share": self.calibration_share,
            "validation_rows": self.validation_rows,
            "roles": dict(self.roles),
            "input_kind": self.input_kind,
            "processing": dict(self.processing),
            "reproducible": self.reproducible,
            "min_runtime": self.min_runtime,
        }
        return {name: value for name, value in told.items() if value is not None and value != {}}

    def rules(self, *, by_clock: bool) -> Rules:
        """Which variants are made, and what decides about them.

        Args:
            by_clock: whether one that nobody named may be left out for being slower.

        Raises:
            RequestError: a target does not compute in what was named.
        """
        if self.variants:
            return Rules(self.variants, self.max_loss, by_clock=False)
        named = [p for p in SMALL_FIRST if p in (self.precision or ("int8", "fp32"))]
        found = [default_recipe(TARGETS["cpu"], p, self.int8) for p in named if "cpu" in self.targets]
        others = [TARGETS[name] for name in self.targets if name != "cpu"]
        for target in others:
            own: list[Precision] = [p for p in named if p in target.computes and p != "fp32"] if self.precision else []
            found += [default_recipe(target, p, self.int8) for p in own or [target.default]]
        if others and (plain := VariantRecipe("fp32")) not in found:
            found.append(plain)  # whatever a target refuses, this runs
        return Rules(tuple(found), self.max_loss, self.precision is not None, by_clock)

    @classmethod
    def of(cls, package: Package) -> Recipe:
        """A package's; one that names none had the defaults, and the variants that it has.

        Raises:
            InvalidPackageError: it names one that cannot be followed.
        """
        told = package.meta.extra.get(KEY)
        if told is None:
            found = {spec.precision for spec in package.variants.values() if spec.device == "cpu"}
            return cls(precision=tuple(name for name in PRECISIONS if name in found) or None, reproducible=True)
        try:
            return cls(
                precision=tuple(map(one_of(PRECISIONS), told["precision"])) if "precision" in told else None,
                targets=tuple(map(one_of(tuple(TARGETS)), told.get("targets", ("cpu",)))),
                variants=tuple(VariantRecipe.from_json(dict(variant)) for variant in told.get("variants", ())),
                int8=Int8Options.from_json(told["int8"]),
                max_loss=_between(told["max_loss"], 0.0, 1.0),
                calibration_share=_between(told["calibration_share"], 0.0, 1.0),
                validation_rows=int(_between(told["validation_rows"], 1, 1 << 31)),
                roles={str(name): one_of(ROLES)(role) for name, role in dict(told.get("roles", {})).items()},
                input_kind=one_of(KINDS)(told["input_kind"]) if "input_kind" in told else None,
                processing=dict(told.get("processing", {})),
                reproducible=bool(told["reproducible"]),
                min_runtime=str(told["min_runtime"]) if "min_runtime" in told else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidPackageError(
                f"the recipe of {package.name} cannot be followed: {error}", "build it anew, without --like"
            ) from error


def _between(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is not in {low:g} to {high:g}")
    return value


@dataclass(frozen=True)
class Kept:
    """What a package takes over from the one that it is like, byte for byte; a device then does not fetch it again.

    Attributes:
        golden_inputs: the golden cases' inputs by name, [N, …].
        validation: inputs by name and true classes int64 [N], or None where there is no such set.
    """

    golden_inputs: Mapping[str, Array]
    validation: tuple[Mapping[str, Array], npt.NDArray[np.int64]] | None

    @classmethod
    def of(cls, package: Package) -> Kept:
        """A package's.

        Raises:
            InvalidPackageError: its files cannot be read.
        """
        try:
            return cls(package.golden().inputs, package.validation())
        except PackageError as error:
            raise InvalidPackageError(str(error)) from error


def check_alike(base: Package, inputs: Sequence[TensorSpec], outputs: Sequence[OutputSpec]) -> None:
    """Nothing, where whoever calls the base can call this model: the same inputs, and all of the base's outputs.

    Features are nobody's promise: another backbone may have more of them, or others.

    Raises:
        UnsupportedModelError: the model is another one.
    """
    wanted = {spec.name: spec for spec in base.meta.inputs}
    found = {spec.name: spec for spec in inputs}
    if wanted != found:
        raise UnsupportedModelError(
            f"its inputs are {_listed(inputs)}; those of {base.name} {base.version} are {_listed(base.meta.inputs)}",
            "export the model with the inputs that clients send",
        )
    here = {(spec.name, spec.datatype, spec.role) for spec in outputs}
    for spec in base.meta.outputs:
        if spec.role != "features" and (spec.name, spec.datatype, spec.role) not in here:
            told = ", ".join(f"{name} ({datatype}, {role})" for name, datatype, role in sorted(here))
            raise UnsupportedModelError(
                f"it lacks the output {spec.name} ({spec.datatype}, {spec.role}) of {base.name} {base.version}; "
                f"it has {told}",
                "export the model with the outputs that clients read, by the same names",
            )


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)
