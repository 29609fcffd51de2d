"""JSON from outside, read strictly: bounded in size and depth, no doubled key, no NaN."""

from __future__ import annotations

import json
from typing import Any

from edgeloop.package.errors import PackageError

#: A manifest of a model with 1,000 classes has about 40 KB.
MAX_JSON_BYTES = 8 << 20
MAX_DEPTH = 32


def read_json(data: bytes, what: str, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse one JSON object.

    Args:
        data: UTF-8.
        what: name of the document, for messages.
        max_bytes: largest size that is read.

    Raises:
        PackageError: it is no such object.
    """
    if len(data) > max_bytes:
        raise PackageError(f"{what} has {len(data):,} bytes; at most {max_bytes:,} are read")
    if _depth(data) > MAX_DEPTH:
        raise PackageError(f"{what} is nested deeper than {MAX_DEPTH} levels")
    try:
        # Of bytes, json.loads would read UTF-16 as well.
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        # 1e999 is infinity by now, and half a surrogate pair is text that cannot be written again.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{what} is not a JSON object")
    return found


def canonical_json(value: Any) -> bytes:
    """The one way in which a value is written when its bytes are hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _depth(data: bytes) -> int:
    """Nesting before anything is parsed. Brackets inside strings count too: that only makes the check stricter."""
    depth = deepest = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
