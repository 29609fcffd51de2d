"""Steps of a build that are done once: graphs and arrays, by the content that they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from safetensors.numpy import load, save

from model_export.caching.cache import Cache
from model_export.caching.content_keys import key_of

Array = npt.NDArray[Any]


def kept_model(cache: Cache, step: str, parts: Mapping[str, Any], make: Callable[[], ModelProto]) -> ModelProto:
    """A graph that was made of these parts before, else one that is made now and kept.

    Args:
        cache: of earlier builds.
        step: its name.
        parts: what decides the graph: models, arrays by name, JSON values.
        make: makes it; what it raises is not kept.
    """
    if (key := content_key(cache, step, parts)) is None:
        return make()
    if (data := cache.read(step, key)) is not None:
        found: ModelProto = ModelProto.FromString(data)
        return found
    made = make()
    cache.write(step, key, made.SerializeToString(deterministic=True))
    return made


def kept_arrays(
    cache: Cache, step: str, parts: Mapping[str, Any], make: Callable[[], dict[str, Array]]
) -> dict[str, Array]:
    """Arrays of numbers by name, as `kept_model` does it with a graph."""
    if (key := content_key(cache, step, parts)) is None:
        return make()
    if (data := cache.read(step, key)) is not None:
        return dict(load(data))
    made = make()
    if all(array.dtype.kind in "fiub" for array in made.values()):
        cache.write(step, key, save({name: np.ascontiguousarray(array) for name, array in made.items()}))
    return made


def content_key(cache: Cache, step: str, parts: Mapping[str, Any]) -> str | None:
    """The key of a step; None where nothing is kept: hashing takes time, and some arrays hold no bytes of their own."""
    if cache.folder is None:
        return None
    try:
        return key_of(step, **{name: _content(part) for name, part in parts.items()})
    except TypeError:
        return None


def _content(part: Any) -> Any:
    if isinstance(part, ModelProto):
        return hashlib.sha256(part.SerializeToString(deterministic=True)).hexdigest()
    if isinstance(part, np.ndarray):
        if part.dtype.kind == "O":
            part = part.astype(str) if all(isinstance(value, str) for value in part.ravel()) else _raise(part)
        told = f"{part.dtype.str} {part.shape} ".encode()
        return hashlib.sha256(told + np.ascontiguousarray(part).tobytes()).hexdigest()
    if isinstance(part, Mapping):
        return {str(name): _content(value) for name, value in part.items()}
    return part


def _raise(part: Array) -> Array:
    raise TypeError(f"an array of {type(part.flat[0]).__name__} has no bytes that stay the same")
