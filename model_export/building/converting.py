"""Opening a source once: what it became is kept by its content, and found again without importing or running it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto
from onnx.external_data_helper import uses_external_data

from model_export.caching.cache import Cache
from model_export.caching.content_keys import folder_key, key_of
from model_export.caching.recording import inputs_of, recorded, still_true
from model_export.data import sha256_of
from model_export.sources import Source, runs_code
from model_export.sources.model import LARGEST_BYTES

STEP, INPUTS = "source", "source-inputs"
#: Of a source: kept apart, and what runs the original, which only a conversion needs.
_APART = ("model", "reference")


def opened(source: object, cache: Cache, asked: Mapping[str, Any], make: Callable[[], Source]) -> Source:
    """A source, from the cache where nothing that it is made of has changed.

    Args:
        source: as a person gives it.
        cache: of earlier builds.
        asked: what decides besides how it is converted, as JSON values: options, and the hash of the data.
        make: opens and converts it.
    """
    if cache.folder is None:
        return make()  # what it is made of is hashed and recorded for later builds alone
    key = _key(source, cache, asked)
    if (before := _found(cache, key)) is not None:
        return before
    with recorded() as seen:
        made = make()
    if isinstance(source, str | Path) and runs_code(source):
        inputs = inputs_of(seen)
        if inputs is None:
            return made
        cache.write(INPUTS, _name_key(source, asked), json.dumps(inputs).encode())
        key = key_of(STEP, source=str(source), inputs=inputs, asked=asked)
    if key is not None:
        with suppress(TypeError):
            cache.write(STEP, key, _packed(made))
    return made


def kept(source: object, cache: Cache, asked: Mapping[str, Any]) -> Source | None:
    """A source as an earlier build has opened it, found without importing or running it; None: it has to be opened."""
    return None if cache.folder is None else _found(cache, _key(source, cache, asked))


def content_of(source: Source) -> str:
    """Hash of all that the later steps take from a source."""
    return hashlib.sha256(_packed(source)).hexdigest()


def _found(cache: Cache, key: str | None) -> Source | None:
    data = None if key is None else cache.read(STEP, key)
    return None if data is None else _unpacked(data)


def _key(source: object, cache: Cache, asked: Mapping[str, Any]) -> str | None:
    """The key of a source; None where its content is not known before it is opened."""
    if isinstance(source, ModelProto):
        content = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        return key_of(STEP, source=type(source).__name__, content=content, asked=asked)
    if not isinstance(source, str | Path):
        return None
    if runs_code(source):
        data = cache.read(INPUTS, _name_key(source, asked))
        inputs = None if data is None else json.loads(data)
        if inputs is None or not still_true(inputs):
            return None
        return key_of(STEP, source=str(source), inputs=inputs, asked=asked)
    path = Path(source)
    try:
        hashed = folder_key(path) if path.is_dir() else _file_key(path)
    except OSError:
        return None  # whoever opens it says what is wrong
    # A folder names the model by its own name, also where it is given as "." or by a link.
    names = [path.name, path.resolve().name]
    return None if hashed is None else key_of(STEP, source=names, content=hashed, asked=asked)


def _name_key(source: object, asked: Mapping[str, Any]) -> str:
    """Under which the inputs of a program are noted: its name, and where it is looked for."""
    path = Path(str(source))
    content = sha256_of(path) if path.is_file() else ""
    return key_of(INPUTS, source=str(source), content=content, folder=str(Path.cwd()), asked=asked)


def _file_key(path: Path) -> str | None:
    """Hash of a file; of an ONNX file also of the files beside it that hold its tensors.

    Returns:
        None for an ONNX file with more weights than a package may have: it is refused before it is read, too.
    """
    is_onnx = path.suffix.lower() == ".onnx"
    if is_onnx and path.stat().st_size > LARGEST_BYTES:
        return None
    found = [sha256_of(path)]
    if is_onnx:
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception:  # no ONNX: opening it says so
            return found[0]
        outside = {
            entry.value
            for tensor in model.graph.initializer
            if uses_external_data(tensor)
            for entry in tensor.external_data
            if entry.key == "location"
        }
        if any((path.parent / name).stat().st_size > LARGEST_BYTES for name in outside):
            return None
        found += [f"{name} {sha256_of(path.parent / name)}" for name in sorted(outside)]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _packed(source: Source) -> bytes:
    """All of a source but the functions in it.

    Raises:
        TypeError: something else in it is no JSON value.
    """
    told = {spec.name: getattr(source, spec.name) for spec in fields(source) if spec.name not in _APART}
    model = source.model.SerializeToString(deterministic=True)
    # Not sorted: a manifest has tools and outputs in the order in which they are told here.
    return pack({"source.json": json.dumps(told).encode(), "model.onnx": model})


def _unpacked(data: bytes) -> Source:
    files = unpack(data)
    told = json.loads(files["source.json"])
    lists = {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
    return Source(**{**told, **lists}, model=ModelProto.FromString(files["model.onnx"]))


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files in one, without compression and times: the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name])
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """What `pack` has made."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
