"""The bytes of an update: a device fetches the files that it lacks, each once, by SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.package import Package, required_paths


@dataclass(frozen=True)
class Update:
    """What a device fetches.

    Attributes:
        files: that it lacks.
        bytes: of these.
        of_files: that the new release needs altogether.
        of_bytes: of these.
        paths: of the files that it lacks, the largest first.
    """

    files: int
    bytes: int
    of_files: int
    of_bytes: int
    paths: tuple[str, ...]


def update(old: Package, new: Package, variants: Sequence[str] | None = None) -> Update:
    """What a device that has a release fetches for the next one.

    Args:
        old: the release that it has, with the variants of ``variants`` that are in it.
        new: the release that it follows.
        variants: of the new one, that the device may run; None: all.
    """
    before = None if variants is None else [name for name in variants if name in old.variants]
    here = {entry.sha256 for entry in required_paths(old.manifest, old.index, before)}
    wanted = {entry.sha256: entry for entry in required_paths(new.manifest, new.index, variants)}
    lacking = sorted((entry for sha, entry in wanted.items() if sha not in here), key=lambda entry: -entry.size)
    return Update(
        files=len(lacking),
        bytes=sum(entry.size for entry in lacking),
        of_files=len(wanted),
        of_bytes=sum(entry.size for entry in wanted.values()),
        paths=tuple(entry.path for entry in lacking),
    )
