"""Keys of cached steps: hashes of all that decides what a step makes.

Besides what a step is given that is the code of edgeloop, every installed library with its version, and the machine,
whose processor decides what int8 computes and how long it takes. A key that changes too often costs time; one that
changes too seldom would give somebody another model than they asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import edgeloop
from edgeloop.runtime.fingerprint import take
from model_export.data import sha256_of

#: Folders of edgeloop's own code, all of which a step may run.
OWN_CODE = (Path(str(edgeloop.__file__)).parent, Path(__file__).parents[1])


def key_of(step: str, **parts: Any) -> str:
    """The key of a step.

    Args:
        step: its name.
        parts: what decides the result, as JSON values; bytes and arrays as hashes of their own.

    Returns:
        64 hex digits.

    Raises:
        TypeError: a part is no JSON value.
    """
    told = {"step": step, "parts": parts, "tools": tools()}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def tools() -> Mapping[str, str]:
    """What every step depends on: edgeloop's own code, Python, the installed libraries, the machine."""
    return {
        "code": files_key(sorted(path for root in OWN_CODE for path in root.rglob("*.py"))),
        "python": sys.version,
        "libraries": _text_key(_installed()),
        "machine": f"{platform.platform()} {take({}).machine}",
    }


def plain(value: Any) -> Any:
    """An option of a build as a JSON value; of a file or folder that it names, the content.

    Raises:
        TypeError: it is none.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        if value.is_dir():
            return folder_key(value)
        return sha256_of(value) if value.is_file() else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {spec.name: plain(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} has no content that can be hashed")


def files_key(files: Iterable[Path]) -> str:
    """Hash of files: the names that they have below their common folder, and their bytes."""
    files = list(files)
    top = Path(*_common([path.parent.parts for path in files])) if files else Path()
    return _text_key(f"{path.relative_to(top).as_posix()} {sha256_of(path)}" for path in files)


def folder_key(folder: Path) -> str:
    """Hash of all files below a folder."""
    return files_key(sorted(path for path in folder.rglob("*") if path.is_file()))


def _common(paths: list[tuple[str, ...]]) -> list[str]:
    parts = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return parts


def _installed() -> list[str]:
    """``name-version`` of every library: its folder of metadata is named so, and listing folders takes milliseconds.

    Of one that came from no index, a repository or a folder, many states have the same version: pip notes which it is
    in ``direct_url.json`` (PEP 610).
    """
    found = set()
    for place in sys.path:
        folder = Path(place or ".")
        for path in (*folder.glob("*.dist-info"), *folder.glob("*.egg-info")) if folder.is_dir() else ():
            origin = path / "direct_url.json"
            found.add(f"{path.name} {sha256_of(origin) if origin.is_file() else ''}")
    return sorted(found)


def _text_key(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
