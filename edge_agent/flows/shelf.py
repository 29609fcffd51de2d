"""A shelf: a folder that takes files from another one, with the reason beside each if there is one. Bounded."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

REASON = ".reason.txt"


class Shelf:
    """Where files go that a source is done with.

    Args:
        folder: is made; on the file system that files come from.
        keep: files that it holds, at most; the oldest are deleted.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        self._count = len(self._files())

    def take(self, file: Path, reason: str = "") -> None:
        """Move a file here; a name that came before gets a number.

        Raises:
            OSError: it cannot be moved.
        """
        target, number = self.folder / file.name, 0
        while os.path.lexists(target) or os.path.lexists(_reason(target)):
            number += 1
            target = self.folder / f"{file.stem}.{number}{file.suffix}"
        if reason:
            _write(_reason(target), reason)
        try:
            file.rename(target)
        except OSError:
            with contextlib.suppress(OSError):
                _reason(target).unlink(missing_ok=True)
            raise
        self._count += 1
        if self._count > self._keep:
            self._thin()

    def _files(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if not entry.name.endswith(REASON)]

    def _thin(self) -> None:
        """Delete the oldest; a tenth more than needed, so that the folder is not listed for each."""
        with contextlib.suppress(OSError):
            files = sorted(self._files(), key=lambda entry: entry.stat(follow_symlinks=False).st_ctime_ns)
            excess = len(files) - self._keep * 9 // 10
            for entry in files[: max(excess, 0)]:
                Path(entry.path).unlink(missing_ok=True)
                _reason(Path(entry.path)).unlink(missing_ok=True)
            self._count = len(files) - max(excess, 0)


def _write(path: Path, reason: str) -> None:
    try:
        path.write_text(reason + "\n", errors="replace")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # the file itself can move still
            raise


def _reason(target: Path) -> Path:
    return target.with_name(target.name + REASON)
