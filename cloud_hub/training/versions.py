"""Versions of retrained releases."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: A version has at most 64 characters; the rest is for the revision.
MAX_STEM = 52
_REVISION = re.compile(r"(?P<stem>.*)\+r(?P<number>[0-9]{1,9})")


def next_version(parent: str, taken: Iterable[str]) -> str:
    """The version of a retrained release: the parent's without its revision, and ``+r<N>``, N the next free number.

    ``1.0.0`` → ``1.0.0+r1`` → ``1.0.0+r2``: in semantic versioning what stands after ``+`` is build metadata.
    """
    found = _REVISION.fullmatch(parent)
    stem = (found["stem"] if found else parent)[:MAX_STEM]
    numbers = [int(match["number"]) for match in map(_REVISION.fullmatch, taken) if match and match["stem"] == stem]
    return f"{stem}+r{max(numbers, default=0) + 1}"
