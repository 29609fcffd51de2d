"""Where a model comes from: a file or folder of one of many kinds, a factory, an object."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from model_export.data import Table, sha256_of
from model_export.errors import SourceError, UntrustedSourceError
from model_export.sources import boosting, huggingface, keras, mlflow
from model_export.sources import onnx as onnx_source
from model_export.sources import sklearn as sklearn_source
from model_export.sources import torch as torch_source
from model_export.sources.model import Source

__all__ = ["Source", "is_factory", "open_source", "runs_code"]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PICKLES = (".joblib", ".pkl", ".pickle")
_TORCH_FILES = (".pt", ".pth", ".pt2", ".ckpt")
_FILES = (
    ".onnx",
    *_PICKLES,
    *_TORCH_FILES,
    *keras.FILES,
    *boosting.XGBOOST_FILES,
    *boosting.LIGHTGBM_FILES,
)


def open_source(source: object, table: Table, *, trust_source: bool = False, opset: int | None = None) -> Source:
    """Read and convert a source to ONNX.

    Args:
        source: a path, ``module:factory``, or an object: an ``onnx.ModelProto``, a fitted scikit-learn classifier, a
            booster of xgboost or lightgbm, a ``torch.nn.Module``.
        table: examples; what has to be traced is traced with its first rows.
        trust_source: whether a pickle may be loaded, which runs what it contains.
        opset: the newest that converters may write; None: what they write by themselves.

    Raises:
        SourceError: nothing of this kind can be read there.
        UntrustedSourceError: a pickle without ``trust_source``.
        UnsupportedModelError: it was read, and is no classifier that can be converted.
        MissingLibraryError: the library of this source is not installed.
    """
    if not isinstance(source, (str, Path)):
        return _from_object(source, table, opset, name=type(source).__name__.lower(), sha256=None)
    text, path = str(source), Path(source)
    if path.is_dir():
        return _from_folder(path, table, opset, trust_source=trust_source)
    if is_factory(text):
        return _from_factory(text, table, opset)
    if path.suffix.lower() not in _FILES:
        raise _unknown(text)
    return _from_file(path, table, opset, trust_source=trust_source)


def is_factory(text: str) -> bool:
    """Whether a source is a ``module:factory`` by its form."""
    return Path(text).suffix.lower() not in _FILES and _FACTORY.fullmatch(text) is not None


def runs_code(source: str | Path) -> bool:
    """Whether opening a source can run a person's own code: a factory, a pickle, or a folder that may hold one."""
    path = Path(source)
    return path.suffix.lower() in (*_PICKLES, *_TORCH_FILES) or mlflow.is_folder(path) or is_factory(str(source))


def _from_folder(path: Path, table: Table, opset: int | None, *, trust_source: bool) -> Source:
    if mlflow.is_folder(path):
        inner = mlflow.model_in(path)
        found = open_source(inner, table, trust_source=trust_source, opset=opset)
        return replace(found, name=path.resolve().name, file=f"{path.name}/{inner.name}")
    if huggingface.is_folder(path):
        return huggingface.from_folder(path, table, trust_source=trust_source, opset=opset)
    if keras.is_folder(path):
        return keras.from_path(path, trust_source=trust_source, opset=opset)
    raise _unknown(str(path))


def _from_file(path: Path, table: Table, opset: int | None, *, trust_source: bool) -> Source:
    if not path.is_file():
        raise SourceError(f"there is no file {path}", "check the path; a factory is given as module:factory")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx_source.from_file(path)
    if suffix in _PICKLES:
        return _from_pickle(path, table, opset, trust_source=trust_source)
    if suffix in keras.FILES:
        return keras.from_path(path, trust_source=trust_source, opset=opset)
    model = torch_source.load(path, trusted=trust_source) if suffix in _TORCH_FILES else boosting.load(path)
    return _from_object(model, table, opset, name=path.stem, sha256=sha256_of(path), file=path.name)


def _unknown(text: str) -> SourceError:
    return SourceError(
        f"{text} is no source that is known",
        "give a .onnx file, a .joblib file with --trust-source, a model file of xgboost, lightgbm or Keras, a folder "
        "of a Hugging Face or MLflow model, or module:factory",
    )


def _from_pickle(path: Path, table: Table, opset: int | None, *, trust_source: bool) -> Source:
    if not trust_source:
        raise UntrustedSourceError(
            f"{path.name} is a pickle: loading it runs whatever code is in it",
            "if you made it yourself, say so with --trust-source",
        )
    model = sklearn_source.load(path)
    return _from_object(model, table, opset, name=path.stem, sha256=sha256_of(path), file=path.name)


def _from_factory(text: str, table: Table, opset: int | None) -> Source:
    """Import ``module`` from the working folder or the installed packages, and call ``factory()``."""
    module_name, _, attribute = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise SourceError(
            f"{text} cannot be imported: {type(error).__name__}: {error}",
            "run it in the folder of the module, or install the module here",
        ) from error
    file = getattr(sys.modules[module_name], "__file__", None)
    sha256 = sha256_of(Path(file)) if file else None
    try:
        model = found() if callable(found) and not _is_model(found) else found
    except Exception as error:
        raise SourceError(
            f"{text}() failed: {type(error).__name__}: {error}", "it is called without arguments, in this folder"
        ) from error
    return _from_object(model, table, opset, name=attribute.rpartition(".")[2], sha256=sha256, file=text)


def _is_model(found: object) -> bool:
    kinds = (torch_source.is_module, sklearn_source.is_estimator, boosting.is_booster, keras.is_model)
    return isinstance(found, ModelProto) or any(is_one(found) for is_one in kinds)


def _from_object(
    model: object, table: Table, opset: int | None, *, name: str, sha256: str | None, file: str = ""
) -> Source:
    """An object is identified by the ONNX that it becomes where no file stands behind it."""
    if isinstance(model, ModelProto):
        result = onnx_source.from_model(model, name=name, file=file)
    elif torch_source.is_module(model):
        result = torch_source.from_module(model, table, name=name, file=file, opset=opset)
    elif keras.is_model(model):
        result = keras.from_model(model, name=name, file=file, opset=opset)
    elif boosting.is_booster(model):
        result = boosting.from_booster(model, name=name, file=file, opset=opset)
    elif sklearn_source.is_estimator(model):
        result = sklearn_source.from_estimator(model, table, name=name, file=file, opset=opset)
    else:
        raise SourceError(
            f"{file or name} is a {type(model).__name__}",
            "it must be a fitted scikit-learn classifier, a booster of xgboost or lightgbm, a torch.nn.Module or an "
            "onnx.ModelProto",
        )
    digest = sha256 or hashlib.sha256(result.model.SerializeToString(deterministic=True)).hexdigest()
    return result.with_sha256(digest)
