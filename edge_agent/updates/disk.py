"""Every change that updates make on the disk goes through here, so that a test can cut the power between any two.

A write is on the disk when its file was synced, a name when its folder was. Until then a power cut may take either, in
any order: whoever needs both says so by syncing both. Reading needs no such care and happens where it is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

#: macOS keeps what fsync has written in the drive's own cache, where a power cut still takes it; this does not.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


class Writing:
    """A file that is being written; its bytes are on the disk after `sync`, its name after the folder's."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self._file = path.open("ab" if keep else "wb")

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(data)

    def sync(self) -> None:
        """Have the bytes on the disk."""
        self._file.flush()
        _sync(self._file.fileno())

    def __enter__(self) -> Writing:
        """Use the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, synced or not."""
        self._file.close()


class Disk:
    """The real one. Every method raises `OSError` as the system does."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and what is missing above it, durably; also when an earlier life was killed in the middle."""
        missing = [path]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for folder in reversed(missing):
            self.mkdir(folder)
            # A service's folder may lie in one that only the service manager can read, and then it has made it.
            with contextlib.suppress(PermissionError):
                self.sync_folder(folder.parent)

    def mkdir(self, path: Path) -> None:
        """Make one folder; it may be there already."""
        path.mkdir(exist_ok=True)

    def open(self, path: Path, *, keep: bool = False) -> Writing:
        """Write a file: from its beginning, or with ``keep`` after what it has."""
        return Writing(path, keep=keep)

    def sync_file(self, path: Path) -> None:
        """Have the bytes of a file on the disk that another process, or an earlier life, may have written."""
        self._sync(path)

    def sync_folder(self, path: Path) -> None:
        """Have the names in a folder on the disk."""
        self._sync(path)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name in the same folder; what had that name is gone."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file one more name."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Take a name of a file away; it may be gone already."""
        path.unlink(missing_ok=True)

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    # ── made of those above ───────────────────────────────────────────────────────────────────

    def replace(self, path: Path, data: bytes) -> None:
        """Write a whole file, durably: after a power cut it is as before, or as given."""
        beside = path.with_name(f"{path.name}.part")
        with self.open(beside) as file:
            file.write(data)
            file.sync()
        self.rename(beside, path)
        self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, or a file."""
        if path.is_symlink() or not path.is_dir():
            self.unlink(path)
            return
        for inside in list(path.iterdir()):
            self.remove_tree(inside)
        self.rmdir(path)

    def _sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    else:
        os.fsync(descriptor)
