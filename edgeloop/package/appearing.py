"""A folder that is there whole or not at all: built beside its destination, forced to the disk, and renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeloop.package.errors import PackageError


@contextmanager
def appearing(dest: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to build in, and one for scratch; the first becomes ``dest`` when all went well.

    Raises:
        PackageError: the destination exists.
    """
    if dest.exists():
        raise PackageError(f"{dest} exists; choose another folder, or remove it")
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as temporary:
        root, scratch = Path(temporary) / "package", Path(temporary) / "scratch"
        root.mkdir()
        scratch.mkdir()
        yield root, scratch
        for path in (*root.rglob("*"), root):
            _sync(path)
        root.rename(dest)
        _sync(dest.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
