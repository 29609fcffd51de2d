"""Small files that are there whole or not at all: keys, certificates and what is decided by them."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file: after a power cut it is as before, or as given; nobody but its owner can read it on the way.

    Args:
        path: in a folder that is there.
        data: all of it.
        mode: its permissions, whatever the umask says.

    Raises:
        OSError: it cannot be written; the file is as before.
    """
    # A name of its own: two processes that write the same file at once each leave a whole one.
    beside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_private_folder(path: Path) -> None:
    """Make a folder that its owner alone may enter; one that is there becomes so.

    Raises:
        OSError: it can be neither made nor changed.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk. A folder that may not be read is somebody else's to sync."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
