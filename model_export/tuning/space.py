"""Which recipes a search may try for one model and one target, and which it tries first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import array_of
from model_export.prepare import Prepared
from model_export.variants.maker import Maker
from model_export.variants.quantize import left_in_float, quantizable, split_gemms
from model_export.variants.recipes import CALIBRATIONS, Int4Options, Int8Options, VariantRecipe
from model_export.variants.shrinking import images_of
from model_export.variants.targets import Target

#: How many of the blamed nodes may stay in float.
EXCLUDED = (0, 1, 2, 4, 8)
SCALES = (1.0, 0.75, 0.5)
BLOCKS = (16, 32, 64)


class Chooser(Protocol):
    """What suggests values: a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        ...


@dataclass(frozen=True)
class Space:
    """What there is to choose.

    Attributes:
        target: for which.
        kinds: ``int8``, ``dynamic``, ``int4``, ``fp16``, ``fp32`` (fused or smaller).
        fusable: whether fused operators are a choice.
        scales: of the input images.
        blamed: names of the nodes that int8 harms, worst first.
    """

    target: Target
    kinds: tuple[str, ...]
    fusable: bool
    scales: tuple[float, ...]
    blamed: tuple[str, ...] = ()

    @classmethod
    def of(cls, maker: Maker, target: Target, blamed: Sequence[str] = ()) -> Space:
        """What a model and a target allow."""
        prepared = maker.prepared
        fusable = target.contrib and maker.fusable
        scales = tuple(scale for scale in SCALES if scale == 1.0 or _shrinks(maker, scale))
        linear = _has_linear(prepared)
        wanted = {
            "int8": "int8" in target.computes and quantizable(prepared.model),
            "dynamic": "int8" in target.computes and target.ep == "CPUExecutionProvider" and linear,
            "int4": "int4" in target.computes and linear and maker.four_bits,
            "fp16": "fp16" in target.computes,
            "fp32": "fp32" in target.computes and (fusable or len(scales) > 1),
        }
        return cls(target, tuple(kind for kind, may in wanted.items() if may), fusable, scales, tuple(blamed))

    def without(self, kind: str) -> Space:
        """The space with one kind less."""
        return replace(self, kinds=tuple(other for other in self.kinds if other != kind))

    def usual(self) -> list[dict[str, Any]]:
        """What other tools make by default, as near as our recipes come: who has measured these chooses nothing slower.

        The head, which stays in float here, makes no difference that can be measured.
        """
        found: list[dict[str, Any]] = []
        if "dynamic" in self.kinds:
            plain = {"kind": "dynamic", "per_channel": False, "embeddings": True}
            # onnxruntime's quantize_dynamic, optimum's avx512_vnni and arm64; optimum's avx2.
            found += [{**plain, "weights": weights} for weights in self._weights()]
        if "int8" in self.kinds:
            # onnxruntime's quantize_static.
            found.append({"kind": "int8", "scheme": "s8s8", "per_channel": False, "excluded": 0})
        return self._distinct(found)

    def first(self) -> list[dict[str, Any]]:
        """What is tried before anything is suggested: what is usual, then what is known to be good somewhere."""
        found = self.usual()
        if "dynamic" in self.kinds:
            for fused in (True, False) if self.fusable else (False,):
                plain = {"kind": "dynamic", "fused": fused, "per_channel": False}
                found += [plain, {**plain, "embeddings": True}, {**plain, "per_channel": True}]
        if "fp32" in self.kinds and self.fusable:
            found.append({"kind": "fp32", "fused": True})
        if "int8" in self.kinds:
            found += [{"kind": "int8", "scheme": scheme, "excluded": 0} for scheme in self.target.schemes]
        found += [{"kind": kind} for kind in ("fp16", "int4") if kind in self.kinds]
        if "int8" in self.kinds and self.blamed:
            found += [
                {"kind": "int8", "scheme": self.target.schemes[0], "excluded": count} for count in self._counts()[1:]
            ]
        if len(self.scales) > 1:
            found.append({"kind": self.kinds[0], "scale": self.scales[1], "excluded": 0})
        return self._distinct(found)

    def suggested(self, chooser: Chooser) -> VariantRecipe:
        """The recipe that a trial suggests."""
        kind = chooser.suggest_categorical("kind", self.kinds)
        return self._recipe(kind, chooser.suggest_categorical)

    def _recipe(self, kind: str, pick: Any) -> VariantRecipe:
        fused = self.fusable and pick("fused", (False, True))
        scale = pick("scale", self.scales) if len(self.scales) > 1 else 1.0
        int8, int4, excluded = None, None, 0
        if kind == "int8":
            scheme = pick("scheme", self.target.schemes)
            int8 = Int8Options(
                scheme,
                pick("calibration", CALIBRATIONS),
                reduce_range=self.target.overflows(scheme),
                per_channel=not self.target.fixed_shapes and pick("per_channel", (True, False)),
                symmetric=scheme != "s8s8" and (self.target.symmetric or pick("symmetric", (False, True))),
            )
            excluded = pick("excluded", self._counts()) if self.blamed else 0
        elif kind == "dynamic":
            weights = pick("weights", self._weights())
            int8 = Int8Options(
                weights,
                reduce_range=self.target.overflows(weights),
                per_channel=pick("per_channel", (True, False)),
                dynamic=True,
                embeddings=pick("embeddings", (False, True)),
            )
        elif kind == "int4":
            int4 = Int4Options(pick("block", BLOCKS), pick("accuracy_level", (4, 0)))
        precision: Any = "int8" if kind == "dynamic" else kind
        return VariantRecipe(
            precision,
            self.target.name,
            int8=int8,
            int4=int4,
            fused=fused,
            input_scale=scale,
            excluded=tuple(sorted(self.blamed[:excluded])),
        )

    def recipe(self, start: Mapping[str, Any]) -> VariantRecipe:
        """The recipe of one of `usual` or `first`."""
        return self._recipe(start["kind"], lambda name, choices: start[name])

    def _distinct(self, starts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Starts with all their choices made, each recipe once."""
        found: dict[VariantRecipe, dict[str, Any]] = {}
        for some in map(self._complete, starts):
            found.setdefault(self.recipe(some), some)
        return list(found.values())

    def _complete(self, some: Mapping[str, Any]) -> dict[str, Any]:
        """A start with the first choice of everything that it does not name."""
        told = {"kind": some["kind"]}

        def pick(name: str, choices: Sequence[Any]) -> Any:
            told[name] = some[name] if some.get(name) in choices else choices[0]
            return told[name]

        self._recipe(some["kind"], pick)
        return told

    def _counts(self) -> tuple[int, ...]:
        return tuple(count for count in EXCLUDED if count <= max(1, len(self.blamed)) or count == 0)

    def _weights(self) -> tuple[str, ...]:
        return tuple(scheme for scheme in self.target.schemes if scheme.startswith("u8"))


def _shrinks(maker: Maker, scale: float) -> bool:
    from model_export.graphs.probe import Probe

    prepared = maker.prepared
    if not images_of(prepared.inputs):
        return False
    try:
        Probe(maker.float_graph(False, scale)).run({name: array[:1] for name, array in prepared.rows.items()})
    except UnsupportedModelError:
        return False
    return True


def _has_linear(prepared: Prepared) -> bool:
    """Whether there is a linear layer besides the head, which dynamic int8 and int4 are about."""
    model = split_gemms(prepared.model)
    kept = left_in_float(model)
    return any(
        node.op_type == "MatMul" and node.name not in kept and array_of(model.graph, node.input[1]) is not None
        for node in model.graph.node
    )
