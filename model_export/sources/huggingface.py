"""Folders of Hugging Face models, by optimum; nothing is fetched and no code of a folder is run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from model_export.data import InputSpec, Table, bind, sha256_of
from model_export.errors import (
    DataError,
    MissingLibraryError,
    SourceError,
    UnsupportedModelError,
    UntrustedSourceError,
)
from model_export.sources import onnx as onnx_source
from model_export.sources import torch as torch_source
from model_export.sources.model import Source, refuse_huge

CONFIG = "config.json"
#: End of an architecture's name → (transformers' class that loads it, optimum's name of the task).
TASKS: Mapping[str, tuple[str, str]] = {
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ForImageClassification": ("AutoModelForImageClassification", "image-classification"),
    "ForAudioClassification": ("AutoModelForAudioClassification", "audio-classification"),
}
#: ``ForSequenceClassification`` also names models of audio.
_AUDIO = ("wav2vec2", "hubert", "unispeech", "unispeech-sat", "wavlm", "whisper", "data2vec-audio", "wav2vec2-bert")
OUTPUT = "logits"
#: The opset that optimum is asked for; the quantizer needs 13, and pictures are prepared in 18.
OPSET = 17


def is_folder(path: Path) -> bool:
    """Whether a folder holds a Hugging Face model."""
    return path.is_dir() and (path / CONFIG).is_file()


def from_folder(path: Path, table: Table, *, trust_source: bool = False, opset: int | None = None) -> Source:
    """Load a classifier's weights, and export it with a dynamic batch (and length of texts).

    Args:
        path: folder with ``config.json`` and the weights.
        table: arrays as the model takes them: ``input_ids`` and ``attention_mask``, ``pixel_values``, …
        trust_source: whether weights that are pickled may be loaded.
        opset: the newest that the model may have.

    Raises:
        SourceError: the folder is not whole, brings code of its own, or cannot be exported.
        UnsupportedModelError: it is no classifier of one class an input.
        UntrustedSourceError: its weights are a pickle.
        MissingLibraryError: transformers or optimum is not installed.
    """
    config = _config(path)
    _refuse_code(path, config)
    if (exported := _exported(path)) is not None:
        return replace(onnx_source.from_file(exported), name=path.resolve().name, classes=_classes(path, config))
    architecture, loader, task = _task(path, config)
    weights = _weights(path, trust_source)
    refuse_huge(sum(file.stat().st_size for file in weights), path.name)
    classes = _classes(path, config)
    with _offline():
        try:
            import optimum.exporters.onnx.model_configs  # noqa: F401  it tells optimum what there is to export
            import transformers
            from optimum.version import __version__ as optimum_version
        except ImportError as error:
            raise MissingLibraryError(
                f"Hugging Face models need {error.name}", "install it: pip install 'edgeloop[huggingface]'"
            ) from error
        module = _loaded(getattr(transformers, loader), path, safe=weights[0].suffix == ".safetensors")
        named, arrays = _named(module, task, table)
        examples = tuple(_tensor(array[: torch_source.EXAMPLE_ROWS]) for array in arrays.values())
        names = list(arrays)
        reference = torch_source.reference_of(named, names, [OUTPUT])
        texts = 2 if all(array.dtype.kind in "iu" for array in arrays.values()) else 1
        ways: list[torch_source.Way] = [
            ("optimum", lambda: _by_optimum(module, task, names, min(opset or OPSET, OPSET))),
            (
                "torch.export",
                lambda: torch_source.by_torch_export(named, examples, names, [OUTPUT], opset, free=texts),
            ),
        ]
        model, how, notes = torch_source.first_right(ways, architecture, reference, arrays)
    tools = {"transformers": transformers.__version__, "optimum": optimum_version}
    return Source(
        "huggingface",
        path.resolve().name,
        path.name,
        model,
        sha256=_digest([path / CONFIG, *weights]),
        classes=classes,
        tools=tools,
        notes=notes,
        how=how,
        reference=reference,
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path.name}/{CONFIG} cannot be read: {error}", "save it by save_pretrained()") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path.name}/{CONFIG} holds no JSON object", "save it by save_pretrained()")
    return found


def _refuse_code(path: Path, config: Mapping[str, Any]) -> None:
    """Remote code would be imported and run: nothing that is exported here needs it."""
    if "auto_map" in config or "custom_pipelines" in config:
        raise SourceError(
            f"{path.name} brings code of its own (auto_map in {CONFIG}), which is never run here",
            "export it to ONNX where you trust that code, and give the .onnx file; or a module:factory of yours",
        )


def _exported(path: Path) -> Path | None:
    """The ONNX file of a folder without other weights, as optimum and `model-export convert` write it."""
    if list(path.glob("model*.safetensors")) or list(path.glob("pytorch_model*.bin")):
        return None
    return next((file for file in (path / "model.onnx", path / "onnx" / "model.onnx") if file.is_file()), None)


def _task(path: Path, config: Mapping[str, Any]) -> tuple[str, str, str]:
    architectures = config.get("architectures") or [""]
    architecture = str(architectures[0])
    found = next((task for end, task in TASKS.items() if architecture.endswith(end)), None)
    if found is None:
        raise UnsupportedModelError(
            f"{path.name} is a {architecture or 'model without an architecture'}",
            f"edgeloop watches classes; give a model of {', '.join(task for _, task in TASKS.values())}",
        )
    if config.get("model_type") in _AUDIO:
        found = TASKS["ForAudioClassification"]
    if config.get("problem_type") in ("multi_label_classification", "regression"):
        raise UnsupportedModelError(
            f"{path.name} is made for {str(config['problem_type']).replace('_', ' ')}",
            "edgeloop watches one class an input; give a model with problem_type single_label_classification",
        )
    return architecture, *found


def _weights(path: Path, trust_source: bool) -> list[Path]:
    """Files of the weights, safetensors where there are any."""
    safe, pickled = sorted(path.glob("model*.safetensors")), sorted(path.glob("pytorch_model*.bin"))
    if not safe and not pickled:
        raise SourceError(f"there are no weights in {path.name}", "save it by save_pretrained(): model.safetensors")
    if not safe and not trust_source:
        raise UntrustedSourceError(
            f"{path.name}/{pickled[0].name} is a pickle",
            "save it by save_pretrained(safe_serialization=True), or say that it is yours with --trust-source",
        )
    return safe or pickled


def _classes(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes; where nothing is said there are two, as in transformers."""
    told = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    try:
        named = {int(index): str(name) for index, name in told.items()}
    except (AttributeError, ValueError) as error:
        raise SourceError(
            f"{path.name}/{CONFIG}: id2label is no map of numbers to names", "save it by save_pretrained()"
        ) from error
    if sorted(named) != list(range(len(named))) or len(named) < 2:
        raise UnsupportedModelError(
            f"{path.name} has {len(named)} class(es) in id2label", "edgeloop watches two classes and more"
        )
    return tuple(named[index] for index in range(len(named)))


def _loaded(loader: Any, path: Path, *, safe: bool) -> Any:
    try:
        return loader.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=safe,
            # The attention that every exporter knows.
            attn_implementation="eager",
        ).eval()
    except Exception as error:  # its own, torch's and safetensors'
        raise SourceError(
            f"{path.name} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0][:300]}",
            "check that the folder is whole, and that this version of transformers knows the model",
        ) from error


def _named(module: Any, task: str, table: Table) -> tuple[Any, dict[str, Any]]:
    """The model as a function of the inputs that the data have, and those arrays."""
    import torch

    known = list(_onnx_config(module, task).inputs)
    names = [name for name in known if name in table.columns]
    if not names and len(table.columns) == 1:
        # The only array is the only input, as for every other model.
        names = known[:1]
    if not names or known[0] not in names:
        raise DataError(
            f"{table.file}: no data for {known[0]}; it has {', '.join(table.columns)}",
            f"name the arrays as the model does: {', '.join(known)}",
        )
    specs = []
    for name in names:
        array = table.columns.get(name, next(iter(table.columns.values())))
        kind = np.dtype(np.float32) if array.dtype.kind == "f" else np.dtype(np.int64)
        specs.append(InputSpec(name, kind, array.shape[1:]))

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        """The model with inputs by position and one tensor out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *given: Any) -> Any:
            return self.model(**dict(zip(names, given, strict=True)), return_dict=True).logits

    return Named().eval(), bind(table, specs)


def _onnx_config(module: Any, task: str) -> Any:
    """What optimum knows of the model's inputs and outputs."""
    from optimum.exporters.tasks import TasksManager

    try:
        make = TasksManager.get_exporter_config_constructor(
            "onnx", model=module, task=task, library_name="transformers"
        )
        return make(module.config)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"optimum cannot export {type(module).__name__}: {error}",
            "export it to ONNX yourself and give the .onnx file, or give a module:factory that returns it",
        ) from error


def _by_optimum(module: Any, task: str, names: Sequence[str], opset: int) -> ModelProto:
    from optimum.exporters.onnx.convert import export_pytorch

    found = _onnx_config(module, task)
    wanted = {name: axes for name, axes in found.inputs.items() if name in names}
    # Only what the data have: the model itself fills in the others, such as the kinds of a text's tokens.
    found.__class__ = type(type(found).__name__, (type(found),), {"inputs": property(lambda self: dict(wanted))})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_pytorch(module, found, opset, file)
        model: ModelProto = onnx.load(file)
        return model


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array.copy())


def _digest(files: Sequence[Path]) -> str:
    """sha256 of the list of files and theirs."""
    listed = "".join(f"{path.name} {sha256_of(path)}\n" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()


@contextmanager
def _offline() -> Iterator[None]:
    """Nobody is asked for anything; and the libraries' warnings stay off the terminal."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
