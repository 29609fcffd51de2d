"""What every source becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnx import ModelProto

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import Array

#: What one protobuf message, and so a graph in memory, can hold.
LARGEST_BYTES = (1 << 31) - 1
#: Rows by input → outputs by name, as the source itself computes them in evaluation mode.
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Source:
    """A model as ONNX, and where it came from.

    Attributes:
        kind: ``onnx``, ``sklearn``, ``torch``, ``huggingface``, ``xgboost``, ``lightgbm`` or ``keras``.
        name: a name for the package where the person gives none.
        file: the file or ``module:factory`` it was read from; empty for an object.
        sha256: of that file's bytes, 64 hex digits.
        model: the converted model, initializers inside.
        classes: what the source calls its classes, in the order of its columns; None where it does not say.
        tools: versions of the libraries that converted it.
        notes: what the person should know about the conversion.
        how: what converted it: ``torch.export``, ``TorchScript``, ``skl2onnx``, …; empty where nothing did.
        parity: what `model_export.sources.parity` has found, as JSON values; None where nothing was compared.
        reference: what the source itself gives, in evaluation mode; None where the source is ONNX already.
    """

    kind: str
    name: str
    file: str
    model: ModelProto
    sha256: str = ""
    classes: tuple[Any, ...] | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    how: str = ""
    parity: Mapping[str, Any] | None = None
    reference: Reference | None = None

    def with_sha256(self, sha256: str) -> Source:
        """The same source with its digest."""
        return replace(self, sha256=sha256)


def refuse_huge(size: int, name: str) -> None:
    """Nothing, where weights of this many bytes can be packaged.

    Raises:
        UnsupportedModelError: they are too large; said before they are read.
    """
    if size > LARGEST_BYTES:
        raise UnsupportedModelError(
            f"{name} has {size / (1 << 30):.1f} GiB of weights; 2 GiB is the most",
            "edgeloop is made for models that devices hold in memory: give a smaller or a distilled one, or one with "
            "its weights in float16",
        )
