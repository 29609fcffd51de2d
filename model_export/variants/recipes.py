"""What makes one variant of a model: chosen by default, by a person or by a search; ``--like`` follows it again."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from model_export.errors import RequestError
from model_export.variants.targets import PRECISIONS, TARGETS, Precision, Scheme, Target, target_of

Calibration = Literal["minmax", "entropy", "percentile"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)
#: Weights of MatMulNBits share a scale in blocks of so many (its operator takes powers of two from 16 on).
BLOCKS = (16, 32, 64, 128, 256)
#: How MatMulNBits adds up: 0 as it likes, 1 in fp32, 4 with activations in int8 (its documentation has the numbers).
ACCURACY_LEVELS = (0, 1, 4)
#: Names of nodes, as `model_export.graphs.canonical` gives them; what else the runtime's tools name.
_NODE = re.compile(r"[\w./:-]{1,200}")
_MOST_EXCLUDED = 10_000


@dataclass(frozen=True)
class Int8Options:
    """How to quantize to int8.

    Attributes:
        scheme: activations uint8 and weights int8 (``u8s8``, fast on x86 with VNNI and on Arm), both int8 (``s8s8``),
            or both uint8 (``u8u8``, which cannot overflow on x86 without VNNI).
        calibration: how the range of an activation follows from what was seen.
        reduce_range: weights of 7 bits, for x86 without VNNI, whose 16-bit sums overflow otherwise; None: for targets
            with such processors.
        per_channel: a scale for each output channel of a weight, instead of one for all.
        symmetric: ranges of activations around zero; ``s8s8`` always has them.
        dynamic: ranges of activations found anew at every run, without calibration; for linear layers alone.
        embeddings: with ``dynamic``, the tables that rows are looked up in become int8 as well, a scale for each table.
    """

    scheme: Scheme = "u8s8"
    calibration: Calibration = "minmax"
    reduce_range: bool | None = None
    per_channel: bool = True
    symmetric: bool = False
    dynamic: bool = False
    embeddings: bool = False

    def describe(self) -> str:
        """One line for lineage."""
        told = [f"dynamic {self.scheme}"] if self.dynamic else [f"static QDQ {self.scheme}", self.calibration]
        told.append("per channel" if self.per_channel else "per tensor")
        told += ["symmetric"] * (self.symmetric and self.scheme != "s8s8") + ["7 bits"] * bool(self.reduce_range)
        told += ["with embeddings"] * self.embeddings
        return ", ".join(told)

    def to_json(self) -> dict[str, Any]:
        """Only what is not the default, but the first three always: older releases read them."""
        always = ("scheme", "calibration", "reduce_range")
        return _told(self, always)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Int8Options:
        """What `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        return cls(
            scheme=one_of(SCHEMES)(told["scheme"]),
            calibration=one_of(CALIBRATIONS)(told["calibration"]),
            reduce_range=None if told["reduce_range"] is None else bool(told["reduce_range"]),
            per_channel=bool(told.get("per_channel", True)),
            symmetric=bool(told.get("symmetric", False)),
            dynamic=bool(told.get("dynamic", False)),
            embeddings=bool(told.get("embeddings", False)),
        )


@dataclass(frozen=True)
class Int4Options:
    """How to store weights of linear layers in 4 bits (``com.microsoft.MatMulNBits``); activations stay in float.

    Attributes:
        block: weights that share a scale; smaller is more accurate and larger.
        accuracy_level: how it adds up: 0 as the provider likes, 1 in fp32, 4 in int8 (fastest on CPUs).
        symmetric: without zero points.
    """

    block: int = 32
    accuracy_level: int = 4
    symmetric: bool = True

    def describe(self) -> str:
        """One line for lineage."""
        return f"MatMulNBits, 4 bits, blocks of {self.block}, accuracy level {self.accuracy_level}" + (
            "" if self.symmetric else ", with zero points"
        )

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Int4Options:
        """From its fields by name.

        Raises:
            ValueError, TypeError: it is something else.
        """
        return cls(
            block=one_of(BLOCKS)(told.get("block", 32)),
            accuracy_level=one_of(ACCURACY_LEVELS)(told.get("accuracy_level", 4)),
            symmetric=bool(told.get("symmetric", True)),
        )


@dataclass(frozen=True)
class VariantRecipe:
    """What makes one variant.

    Attributes:
        precision: of its weights and activations.
        target: what it is made for, a name in `model_export.variants.targets.TARGETS`.
        int8: how to quantize; for int8 alone.
        int4: how to store weights; for int4 alone.
        fused: whether attention, Gelu and layer norms of a transformer become single operators of ``com.microsoft``.
        input_scale: images are first made smaller by this factor, inside the graph; 1: as they come.
        excluded: names of nodes that stay in float.
    """

    precision: Precision
    target: str = "cpu"
    int8: Int8Options | None = None
    int4: Int4Options | None = None
    fused: bool = False
    input_scale: float = 1.0
    excluded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, or what the target does not compute.

        Raises:
            RequestError: it does.
        """
        made_for = target_of(self.target)
        if self.precision not in PRECISIONS:
            raise RequestError(f"precision {self.precision!r:.40} is not known", f"use {', '.join(PRECISIONS)}")
        if self.precision not in made_for.computes:
            able = [name for name, target in TARGETS.items() if self.precision in target.computes]
            raise RequestError(
                f"{self.target} does not compute in {self.precision}",
                f"it does in {', '.join(made_for.computes)}; {self.precision} is computed by {', '.join(able)}",
            )
        for name, wanted in (("int8", self.int8), ("int4", self.int4)):
            if (self.precision == name) != (wanted is not None):
                raise RequestError(
                    f"a {self.precision} variant {'without' if wanted is None else 'with'} {name} options"
                )
        if self.int8 is not None and self.int8.dynamic and made_for.ep != TARGETS["cpu"].ep:
            raise RequestError(f"dynamic int8 runs on CPUs alone, not on {self.target}", "use static int8 there")
        if self.int8 is not None and self.int8.embeddings and not self.int8.dynamic:
            raise RequestError("static int8 leaves embeddings in float", "use dynamic int8 for them")
        if self.int8 is not None and self.int8.scheme not in made_for.schemes and self.target != "cpu-vnni":
            raise RequestError(f"{self.target} takes int8 as {' or '.join(made_for.schemes)}, not {self.int8.scheme}")
        if self.fused and not made_for.contrib:
            raise RequestError(f"{self.target} does not run fused operators", "leave fused out for it")
        if not 0.1 <= self.input_scale <= 1.0:
            raise RequestError(f"an input scale of {self.input_scale:g} is not in 0.1 to 1")

    @property
    def name(self) -> str:
        """The variant's: ``<target>-<precision>``, and what makes it unlike the usual one."""
        scale = "" if self.input_scale == 1.0 else f"-x{self.input_scale:g}"
        return f"{self.target}-{self.precision}{'-fused' * self.fused}{scale}"

    @property
    def made_for(self) -> Target:
        """The target itself."""
        return target_of(self.target)

    def describe(self) -> str:
        """One line for lineage and reports."""
        kind = self.int8 or self.int4
        told = [self.precision if kind is None else kind.describe()]
        told += ["fused operators"] * self.fused
        told += [f"inputs x {self.input_scale:g}"] * (self.input_scale != 1.0)
        told += [f"{len(self.excluded)} node{'s'[: len(self.excluded) - 1]} in float"] * bool(self.excluded)
        return ", ".join(told)

    def to_json(self) -> dict[str, Any]:
        """What is not the default; the precision always."""
        told = _told(self, ("precision",))
        if self.int8 is not None:
            told["int8"] = self.int8.to_json()
        if self.int4 is not None:
            told["int4"] = _told(self.int4, ())
        if self.excluded:
            told["excluded"] = list(self.excluded)
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> VariantRecipe:
        """What `to_json` gave; strict, since it may come with a package of somebody else.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        excluded = tuple(told.get("excluded", ()))
        if len(excluded) > _MOST_EXCLUDED or not all(isinstance(n, str) and _NODE.fullmatch(n) for n in excluded):
            raise ValueError("excluded holds what is no name of a node")
        scale = told.get("input_scale", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ValueError(f"{scale!r:.40} is no scale")
        try:
            return cls(
                precision=one_of(PRECISIONS)(told["precision"]),
                target=one_of(tuple(TARGETS))(told.get("target", "cpu")),
                int8=None if told.get("int8") is None else Int8Options.from_json(told["int8"]),
                int4=None if told.get("int4") is None else Int4Options.from_json(told["int4"]),
                fused=bool(told.get("fused", False)),
                input_scale=float(scale),
                excluded=excluded,
            )
        except RequestError as error:
            raise ValueError(str(error)) from error


def one_of(known: Sequence[Any]) -> Any:
    """A check that gives back one of the known values, and raises ValueError for any other."""

    def check(value: object) -> Any:
        if value not in known:
            raise ValueError(f"{value!r:.40} is none of {', '.join(map(str, known))}")
        return value

    return check


def _told(options: Any, always: Sequence[str]) -> dict[str, Any]:
    return {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name in always or getattr(options, field.name) != field.default
    }
