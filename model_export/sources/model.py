"""What every source becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnx import ModelProto


@dataclass(frozen=True)
class Source:
    """A model as ONNX, and where it came from.

    Attributes:
        kind: ``onnx``, ``sklearn`` or ``torch``.
        name: a name for the package where the person gives none.
        file: the file or ``module:factory`` it was read from; empty for an object.
        sha256: of that file's bytes, 64 hex digits.
        model: the converted model, initializers inside.
        classes: what the source calls its classes, in the order of its columns; None where it does not say.
        tools: versions of the libraries that converted it.
        notes: what the person should know about the conversion.
    """

    kind: str
    name: str
    file: str
    model: ModelProto
    sha256: str = ""
    classes: tuple[Any, ...] | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_sha256(self, sha256: str) -> Source:
        """The same source with its digest."""
        return replace(self, sha256=sha256)
