"""PyTorch modules, by ``torch.onnx.export``: the ``torch.export`` path, or TorchScript where that one is not right."""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from model_export.data import InputSpec, Table, bind, spread
from model_export.errors import ExportError, MissingLibraryError, SourceError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.sources import parity
from model_export.sources.model import Reference, Source, refuse_huge

#: Rows that a module is traced with. Two or more, or the exporter takes the batch for a constant 1.
EXAMPLE_ROWS = 4
#: The oldest opset that the ``torch.export`` path writes; TorchScript goes first where an older one is wanted.
OLDEST_BY_EXPORT = 18
#: Rows of one call of the module itself.
BATCH = 256
#: A way to make ONNX of a module, and its name.
Way = tuple[str, Callable[[], ModelProto]]


def is_module(found: object) -> bool:
    """Whether this is a ``torch.nn.Module`` instance; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)


def load(path: Path, *, trusted: bool) -> Any:
    """A whole module that was saved, which is a pickle.

    Raises:
        SourceError: it cannot be read, holds weights alone, or nobody said that its code may run.
    """
    advice = "write a function that builds the module and loads them, and give it as module:function"
    if not trusted:
        raise SourceError(
            f"{path.name}: saved PyTorch weights do not say how to compute",
            f"{advice}; where it is a whole module, a pickle of yours, say so with --trust-source",
        )
    try:
        import torch
    except ImportError as error:
        raise MissingLibraryError("PyTorch sources need torch", "pip install 'edgeloop[torch]'") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle raises whatever its code raises
        raise SourceError(
            f"{path.name} cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            "install the modules that it was saved with, or give a module:factory",
        ) from error
    if not is_module(found):
        raise SourceError(f"{path.name}: saved PyTorch weights do not say how to compute", advice)
    return found


def from_module(module: Any, table: Table, *, name: str, file: str, opset: int | None = None) -> Source:
    """Export a module in eval mode with a dynamic batch dimension.

    Its inputs are the parameters of ``forward`` that have no default, by name; arrays of floating point are given as
    float32, whole numbers as they are.

    Raises:
        SourceError: neither exporter can trace it, or what they make is another model.
        UnsupportedModelError: ``forward`` takes no tensor by name.
    """
    try:
        import torch
        import torch.export
    except ImportError as error:
        raise MissingLibraryError("PyTorch sources need torch", "pip install 'edgeloop[torch]'") from error
    refuse_huge(sum(p.numel() * p.element_size() for p in module.parameters()), type(module).__name__)
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
    if flat := [name for name, tensor in zip(outputs, _tensors(result), strict=True) if not tensor.dim()]:
        raise UnsupportedModelError(
            f"{type(module).__name__} gives one value for all rows of a batch as {flat[0]}",
            "leave it out of what forward() returns, or give it a first dimension for the batch",
        )
    reference = reference_of(module, names, outputs)
    ways: list[Way] = [
        ("torch.export", lambda: by_torch_export(module, examples, names, outputs, opset)),
        ("TorchScript", lambda: by_torchscript(module, examples, names, outputs, opset)),
    ]
    if opset is not None and opset < OLDEST_BY_EXPORT:
        ways.reverse()
    model, how, notes = first_right(ways, type(module).__name__, reference, arrays)
    tools = {"torch": torch.__version__}
    return Source("torch", name, file, model, tools=tools, notes=notes, how=how, reference=reference)


def first_right(
    ways: Sequence[Way], title: str, reference: Reference, arrays: Mapping[str, Array]
) -> tuple[ModelProto, str, tuple[str, ...]]:
    """The first way's model that gives what the source gives, the way's name, and why not an earlier way's.

    Raises:
        SourceError: there is none.
    """
    rows, reasons = spread(arrays, parity.ROWS), list[str]()
    for how, make in ways:
        try:
            model = make()
            reason = parity.compare(model, reference, rows, how).refused(parity.EVERY_ROW)
        except ImportError as error:
            reason = f"it needs {error.name} (pip install 'edgeloop[torch]')"
        except ExportError as error:
            reason = str(error)
        except Exception as error:  # exporters raise whatever a module's own code raises, and much of their own
            reason = _first_line(error)
        if not reason:
            return model, how, (f"exported by {how}, since {'. '.join(reasons)}",) if reasons else ()
        reasons.append(f"{how}: {reason}")
    raise SourceError(
        f"{title} cannot be exported. {'. '.join(reasons)}",
        "make forward() free of Python that depends on values, or export to ONNX yourself and give the .onnx file",
    )


def reference_of(module: Any, names: Sequence[str], outputs: Sequence[str]) -> Reference:
    """What a module, in eval mode, gives for rows by the names of its inputs."""

    def run(rows: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(rows[names[0]]), BATCH):
                given = [torch.from_numpy(rows[name][start : start + BATCH].copy()) for name in names]
                parts.append(_tensors(module(*given)))
        return {name: np.concatenate([tensors[i].numpy() for tensors in parts]) for i, name in enumerate(outputs)}

    return run


def _tensors(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return list(result)
    return list(result.values()) if isinstance(result, dict) else [result]


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


def by_torch_export(
    module: Any,
    examples: tuple[Any, ...],
    names: Sequence[str],
    outputs: Sequence[str],
    opset: int | None,
    free: int = 1,
) -> ModelProto:
    """The ``torch.export`` path.

    Args:
        module: in eval mode.
        examples: its inputs, `EXAMPLE_ROWS` of them.
        names: of its inputs.
        outputs: names of its outputs.
        opset: the newest that the model may have; None: the exporter's own.
        free: how many leading dimensions of an input are dynamic.
    """
    import torch

    if free == 1:
        # One symbol for all inputs: rows of a batch belong together.
        batch = torch.export.Dim("N", min=1)
        shapes: tuple[Any, ...] = tuple({0: batch} for _ in examples)
    else:
        # The model itself bounds the length of a text, by as many positions as it knows.
        auto = torch.export.Dim.AUTO
        shapes = tuple(dict.fromkeys(range(min(free, example.dim())), auto) for example in examples)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        shapes = (shapes,)
    with _quiet():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            # It writes 18 and later itself, and older ones by onnx's converter.
            opset_version=opset,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=outputs,
            verbose=False,
        )
    model: ModelProto = ModelProto.FromString(program.model_proto.SerializeToString())
    return model


def by_torchscript(
    module: Any, examples: tuple[Any, ...], names: Sequence[str], outputs: Sequence[str], opset: int | None
) -> ModelProto:
    """The older path; arguments as those of `by_torch_export`."""
    import torch

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            examples,
            os.fspath(file),
            dynamo=False,
            opset_version=min(opset or 17, 17),
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
