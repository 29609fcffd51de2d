"""ONNX files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import uses_external_data

from model_export.data import sha256_of
from model_export.errors import SourceError
from model_export.sources.model import Source


def from_file(path: Path) -> Source:
    """Read a ``.onnx`` file, with the external data beside it.

    Raises:
        SourceError: the file is absent, truncated, or its external data is absent or outside its folder.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf, onnx and the operating system each have their own errors for it
        raise SourceError(
            f"{path.name} cannot be read as ONNX: {error}",
            "check that the file is whole, and that its external data lies beside it",
        ) from error
    return from_model(model, name=path.stem, file=path.name).with_sha256(_digest(path, model))


def _digest(path: Path, model: ModelProto) -> str:
    """sha256 of the file; with external data, of the model that both make."""
    outside = any(uses_external_data(tensor) for tensor in onnx.load(path, load_external_data=False).graph.initializer)
    if not outside:
        return sha256_of(path)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def from_model(model: ModelProto, *, name: str, file: str) -> Source:
    """A model in memory.

    Raises:
        SourceError: it breaks the ONNX specification.
    """
    if not model.graph.node:
        raise SourceError(f"{file or name} has no graph", "check that the file is an ONNX model and whole")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # Models with contrib operators fail the check for their domain only; `canonical` says that more clearly.
        if not any(node.domain not in ("", "ai.onnx.ml") for node in model.graph.node):
            raise SourceError(f"{file or name} breaks the ONNX specification: {error}") from error
    return Source("onnx", name, file, model, tools={"onnx": onnx.__version__})
