"""ONNX files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from model_export.data import sha256_of
from model_export.errors import ExportError, SourceError, UnsupportedModelError
from model_export.sources.model import Source, refuse_huge


def from_file(path: Path) -> Source:
    """Read a ``.onnx`` file, with the external data beside it.

    Raises:
        SourceError: the file is truncated, or its external data is absent or outside its folder.
    """
    refuse_huge(path.stat().st_size, path.name)
    try:
        refuse_huge(_outside_bytes(path), path.name)
        model = onnx.load(path)
    except ExportError:
        raise
    except Exception as error:  # protobuf, onnx and the operating system each have their own errors for it
        raise SourceError(
            f"{path.name} cannot be read as ONNX: {error}",
            "check that the file is whole, and that its external data lies beside it",
        ) from error
    return from_model(model, name=path.stem, file=path.name).with_sha256(_digest(path, model))


def _outside_bytes(path: Path) -> int:
    """Bytes of the tensors that lie beside the file, as it says itself."""
    graph = onnx.load(path, load_external_data=False).graph
    told = [ExternalDataInfo(tensor) for tensor in graph.initializer if uses_external_data(tensor)]
    # One without a length is a whole file.
    whole = {info.location for info in told if not info.length}
    files = (path.parent / location for location in whole)
    return sum(info.length or 0 for info in told) + sum(file.stat().st_size for file in files if file.is_file())


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
        UnsupportedModelError: an input has no fixed number of dimensions.
    """
    if not model.graph.node:
        raise SourceError(f"{file or name} has no graph", "check that the file is an ONNX model and whole")
    model = _with_shapes(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # Models with contrib operators fail the check for their domain only; `canonical` says that more clearly.
        if not any(node.domain not in ("", "ai.onnx.ml") for node in model.graph.node):
            raise SourceError(
                f"{file or name} breaks the ONNX specification: {error}", "export it again, with another exporter"
            ) from error
    return Source("onnx", name, file, model, tools={"onnx": onnx.__version__})


def _with_shapes(model: ModelProto) -> ModelProto:
    """The model with the number of dimensions of each input and output, which some exporters leave out."""
    for value in model.graph.input:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise UnsupportedModelError(
                f"input {value.name} has no fixed number of dimensions",
                "export it with a shape, such as [N, 3, 224, 224] with a free N",
            )
    if all(v.type.tensor_type.HasField("shape") for v in model.graph.output if v.type.HasField("tensor_type")):
        return model
    return onnx.shape_inference.infer_shapes(model)
