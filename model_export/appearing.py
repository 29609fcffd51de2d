"""A folder that appears whole under its name, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeloop.whole_files import sync_folder
from model_export.errors import DestinationError


def require_free(path: Path) -> None:
    """Nothing, where a folder of this name can be made.

    Raises:
        DestinationError: there is something, or there is no folder to put it into.
    """
    if path.exists() or path.is_symlink():
        raise DestinationError(f"{path} exists already", "choose another folder, or remove it first")
    if not path.parent.is_dir():
        raise DestinationError(f"there is no folder {path.parent}", "make it first")


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """A place beside ``destination`` where nothing is yet; what is written there gets that name when the block ends.

    It is on the same file system, so that the name comes by a rename. Where the block fails nothing is left.

    Raises:
        DestinationError: it cannot be written, or somebody else has put something there meanwhile.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as folder:
            staged = Path(folder) / "package"
            yield staged
            require_free(destination)
            staged.rename(destination)
            with suppress(OSError):  # not every file system lets a folder be synced
                sync_folder(destination.parent)
    except OSError as error:
        raise DestinationError(
            f"{destination} cannot be written: {error.strerror or error}", "free space, or choose another folder"
        ) from error
