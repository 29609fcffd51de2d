"""Reading what a person has declared: ``processing.toml``, and the vocabulary beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_export.errors import RequestError
from model_export.processing.steps import Processing, read_processing

#: A file of this name beside a model is taken without being named.
NAME = "processing.toml"
_HINT = "docs/reference/model-export.md lists what a processing file may say"


def from_file(path: Path) -> Processing:
    """What a TOML file says; ``[text] vocabulary`` is a file beside it with one token a line.

    Raises:
        RequestError: the file or its vocabulary cannot be read, or says what cannot be done.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}", _HINT) from error
    try:
        told = _with_sizes(told)
        vocabulary: tuple[str, ...] = ()
        if isinstance(text := told.get("text"), dict):
            name = text.pop("vocabulary", None)
            if not isinstance(name, str) or not name:
                raise ValueError("[text]: vocabulary has to name a file beside this one, with one token a line")
            vocabulary = read_vocabulary(path.parent / name)
        return read_processing(told, vocabulary, origin=path.name)
    except ValueError as error:
        raise RequestError(f"{path.name}: {error}", _HINT) from error


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """One token a line.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the vocabulary {path.name} cannot be read: {error}") from error
    return tuple(lines)


def _with_sizes(told: Mapping[str, Any]) -> dict[str, Any]:
    """``size`` stands for height and width."""
    found = dict(told)
    image = found.get("image")
    if isinstance(image, dict) and "size" in image:
        image = dict(image)
        size = image.pop("size")
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or {"height", "width"} & set(image):
            raise ValueError("[image]: size is one number, or [height, width]; then height and width are left out")
        found["image"] = image | dict(zip(("height", "width"), sides, strict=True))
    return found
