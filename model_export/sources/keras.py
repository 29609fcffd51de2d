"""Keras models and TensorFlow's SavedModels, by tf2onnx. TensorFlow is optional, and large."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from model_export.data import sha256_of
from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError, UntrustedSourceError
from model_export.graphs.graph import Array, rename_tensor
from model_export.sources.model import Reference, Source

#: ``.keras`` is loaded without the code that it may hold; the older format cannot be told apart from its code.
FILES, UNSAFE_FILES = (".keras", ".h5", ".hdf5"), (".h5", ".hdf5")
SAVED_MODEL = "saved_model.pb"
#: The newest opset that tf2onnx 1.17 writes is 18.
OPSET = 17


def is_folder(path: Path) -> bool:
    """Whether a folder is TensorFlow's SavedModel."""
    return path.is_dir() and (path / SAVED_MODEL).is_file()


def is_model(found: object) -> bool:
    """Whether this is a Keras model; imports nothing."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(found, keras.Model)


def from_path(path: Path, *, trust_source: bool, opset: int | None) -> Source:
    """A ``.keras`` or ``.h5`` file, or the folder of a SavedModel.

    Raises:
        SourceError: it cannot be read.
        UntrustedSourceError: its format runs code, and nobody said that it may.
        MissingLibraryError: TensorFlow or tf2onnx is not installed.
    """
    if not trust_source and (path.is_dir() or path.suffix.lower() in UNSAFE_FILES):
        raise UntrustedSourceError(
            f"{path.name} can hold code that runs",
            "save it as .keras, or, if you made it yourself, say so with --trust-source",
        )
    tensorflow = _libraries()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    listed = "".join(f"{file.name} {sha256_of(file)}\n" for file in files)
    sha256 = hashlib.sha256(listed.encode()).hexdigest() if path.is_dir() else sha256_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not path.is_dir():
                import keras

                model = keras.models.load_model(path, compile=False, safe_mode=not trust_source)
            else:
                loaded = tensorflow.saved_model.load(str(path))
                served = loaded.signatures["serving_default"]
    except Exception as error:  # keras and TensorFlow raise of everything
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise SourceError(f"{path.name} cannot be loaded: {first}", "save it with this version of Keras") from error
    if not path.is_dir():
        return from_model(model, name=path.stem, file=path.name, opset=opset).with_sha256(sha256)
    specs = list(served.structured_input_signature[1].values())
    names = list(served.structured_input_signature[1])

    def call(*given: Any) -> list[Any]:
        # The variables are the loaded object's, and live as long as it does.
        assert loaded is not None
        return list(served(**dict(zip(names, given, strict=True))).values())

    outputs = list(served.structured_outputs)
    return _source(call, specs, names, outputs, name=path.resolve().name, file=path.name, opset=opset).with_sha256(
        sha256
    )


def from_model(model: Any, *, name: str, file: str, opset: int | None) -> Source:
    """A Keras model in memory, in inference mode.

    Raises:
        UnsupportedModelError: tf2onnx cannot convert it.
        MissingLibraryError: TensorFlow or tf2onnx is not installed.
    """
    tensorflow = _libraries()
    names = [str(given.name).split(":", maxsplit=1)[0] for given in model.inputs]
    specs = [
        tensorflow.TensorSpec((None, *given.shape[1:]), given.dtype, name=named)
        for given, named in zip(model.inputs, names, strict=True)
    ]
    outputs = [f"output_{i}" for i in range(len(model.outputs))] if len(model.outputs) > 1 else ["output"]

    def call(*given: Any) -> list[Any]:
        found = model(given[0] if len(given) == 1 else list(given), training=False)
        return list(found) if isinstance(found, (list, tuple)) else [found]

    return _source(call, specs, names, outputs, name=name, file=file, opset=opset)


def _source(
    call: Callable[..., list[Any]],
    specs: Sequence[Any],
    names: Sequence[str],
    outputs: Sequence[str],
    *,
    name: str,
    file: str,
    opset: int | None,
) -> Source:
    import tensorflow
    import tf2onnx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: ModelProto = tf2onnx.convert.from_function(
                tensorflow.function(call), input_signature=list(specs), opset=min(opset or OPSET, OPSET)
            )[0]
    except Exception as error:  # tf2onnx raises of everything
        raise UnsupportedModelError(
            f"tf2onnx cannot convert {file or name}: {type(error).__name__}: {str(error)[:300]}",
            "leave out layers that ONNX has no operators for, or export to ONNX yourself and give the .onnx file",
        ) from error
    for value, wanted in zip(list(model.graph.output), outputs, strict=True):
        rename_tensor(model.graph, value.name, wanted)
    given = [value.name for value in model.graph.input]
    for value, wanted in zip(given, names, strict=True):
        rename_tensor(model.graph, value, wanted)
    tools = {"tensorflow": tensorflow.__version__, "tf2onnx": tf2onnx.__version__}
    reference = _reference(call, names, outputs)
    return Source("keras", name, file, model, tools=tools, how="tf2onnx", reference=reference)


def _reference(call: Callable[..., list[Any]], names: Sequence[str], outputs: Sequence[str]) -> Reference:
    def run(rows: Mapping[str, Array]) -> dict[str, Array]:
        import tensorflow

        found = call(*(tensorflow.constant(rows[name]) for name in names))
        return {name: np.asarray(value) for name, value in zip(outputs, found, strict=True)}

    return run


def _libraries() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f"Keras models need {error.name}", "install it: pip install 'edgeloop[keras]'"
        ) from error
    return tensorflow
