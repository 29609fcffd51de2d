"""PyTorch modules, by ``torch.onnx.export`` (the ``torch.export`` path first, TorchScript where that fails)."""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from model_export.data import InputSpec, Table, bind
from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError
from model_export.sources.model import Source

#: Rows that a module is traced with. Two or more, or the exporter takes the batch for a constant 1.
EXAMPLE_ROWS = 4


def is_module(found: object) -> bool:
    """Whether this is a ``torch.nn.Module`` instance; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)


def from_module(module: Any, table: Table, *, name: str, file: str) -> Source:
    """Export a module in eval mode with a dynamic batch dimension.

    Its inputs are the parameters of ``forward`` that have no default, by name; arrays of floating point are given as
    float32, whole numbers as they are.

    Raises:
        SourceError: neither exporter can trace it.
        UnsupportedModelError: ``forward`` takes no tensor by name.
    """
    try:
        import torch
        import torch.export
    except ImportError as error:
        raise MissingLibraryError("PyTorch sources need torch", "pip install 'edgeloop[torch]'") from error
    module = module.cpu().eval()
    names = _inputs_of(module)
    arrays = bind(table, [_spec(table, name, alone=len(names) == 1) for name in names])
    examples = tuple(torch.from_numpy(arrays[name][:EXAMPLE_ROWS].copy()) for name in names)
    try:
        with torch.no_grad():
            result = module(*examples)
    except Exception as error:
        raise SourceError(
            f"{type(module).__name__} does not run on the first rows of {table.file}: {type(error).__name__}: {error}",
            "give the data in the shape that forward() takes",
        ) from error
    outputs = _output_names(result)
    model, notes = _export(module, examples, names, outputs)
    return Source("torch", name, file, model, tools={"torch": torch.__version__}, notes=notes)


def _inputs_of(module: Any) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    if not names:
        raise UnsupportedModelError(f"{type(module).__name__}.forward() names no input", "name its tensors, not *args")
    return names


def _spec(table: Table, name: str, *, alone: bool) -> InputSpec:
    """What the data says about an input, since a module does not say it."""
    array = table.columns.get(name)
    if array is None and alone and len(table.columns) == 1:
        array = next(iter(table.columns.values()))
    if array is None:
        # Columns of single numbers, side by side; `bind` says what is wrong where they are not.
        return InputSpec(name, np.dtype(np.float32), (len(table.columns),))
    dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype
    return InputSpec(name, dtype, array.shape[1:])


def _output_names(result: Any) -> list[str]:
    import torch

    if isinstance(result, torch.Tensor):
        return ["output"]
    if isinstance(result, dict) and all(isinstance(value, torch.Tensor) for value in result.values()):
        return [str(key) for key in result]
    if isinstance(result, (tuple, list)) and all(isinstance(value, torch.Tensor) for value in result):
        return [f"output_{i}" for i in range(len(result))]
    raise UnsupportedModelError(
        f"forward() returns {type(result).__name__}", "return a tensor, or a tuple or a dict of tensors"
    )


def _export(
    module: Any, examples: tuple[Any, ...], names: list[str], outputs: list[str]
) -> tuple[ModelProto, tuple[str, ...]]:
    try:
        return _by_torch_export(module, examples, names, outputs), ()
    except ImportError as error:
        first = f"torch.export needs {error.name} (pip install 'edgeloop[torch]')"
    except Exception as error:
        first = f"torch.export: {_first_line(error)}"
    try:
        model = _by_torchscript(module, examples, names, outputs)
    except Exception as error:
        raise SourceError(
            f"{type(module).__name__} cannot be exported. {first}. TorchScript: {_first_line(error)}",
            "make forward() free of Python that depends on values, or export to ONNX yourself and give the .onnx file",
        ) from error
    return model, (f"exported by TorchScript, since {first}",)


def _by_torch_export(module: Any, examples: tuple[Any, ...], names: list[str], outputs: list[str]) -> ModelProto:
    import torch

    # One symbol for all inputs: rows of a batch belong together.
    batch = torch.export.Dim("N", min=1)
    with _quiet():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            input_names=names,
            output_names=outputs,
            verbose=False,
        )
    model: ModelProto = ModelProto.FromString(program.model_proto.SerializeToString())
    return model


def _by_torchscript(module: Any, examples: tuple[Any, ...], names: list[str], outputs: list[str]) -> ModelProto:
    import torch

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            examples,
            os.fspath(file),
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in (*names, *outputs)},
        )
        model: ModelProto = onnx.load(file)
        return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print their progress on stdout and warn about optional libraries; stdout is for ``--json``."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
