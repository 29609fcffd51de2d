"""Folders of MLflow models: which file in it is the model. MLflow itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError

MODEL = "MLmodel"
#: Flavour → (key of the flavour that names the file or folder, path inside of it); the best one first.
FLAVOURS: Mapping[str, tuple[str, str]] = {
    "onnx": ("data", ""),
    "transformers": ("model_binary", ""),
    "sklearn": ("pickled_model", ""),
    "xgboost": ("data", ""),
    "lightgbm": ("data", ""),
    "pytorch": ("model_data", "model.pth"),
    "keras": ("data", "model.keras"),
    "tensorflow": ("data", "model.keras"),
}


def is_folder(path: Path) -> bool:
    """Whether a folder is an MLflow model."""
    return path.is_dir() and (path / MODEL).is_file()


def model_in(path: Path) -> Path:
    """The file, or the folder of Hugging Face, that the model is in.

    Raises:
        SourceError: ``MLmodel`` cannot be read, or names what is not there or lies outside.
        UnsupportedModelError: it has no flavour that is known.
        MissingLibraryError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingLibraryError("MLflow models need PyYAML", "install it: pip install 'edgeloop[mlflow]'") from error
    try:
        told: Any = yaml.safe_load((path / MODEL).read_text(encoding="utf-8"))
        flavours = dict(told["flavors"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SourceError(f"{path.name}/{MODEL} cannot be read: {error}", "save it by mlflow's save_model()") from error
    flavour = next((name for name in FLAVOURS if name in flavours), None)
    if flavour is None:
        raise UnsupportedModelError(
            f"{path.name} is an MLflow model of {', '.join(map(str, flavours))}",
            f"save it with one of the flavours {', '.join(FLAVOURS)}",
        )
    key, inside = FLAVOURS[flavour]
    told_path = dict(flavours[flavour] or {}).get(key)
    found = (path / str(told_path or "data") / inside).resolve()
    if not found.is_relative_to(path.resolve()) or not found.exists():
        raise SourceError(f"{path.name}/{MODEL} names {told_path!r}, which is not there", "copy the whole folder")
    return found
