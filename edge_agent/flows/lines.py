"""A file of lines that is appended to, rotated by size, and whole after a kill.

A line is written by one call; what a kill or a full disk leaves of one has no line end, and is cut off at the next
start: nobody was told that it was there.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.flows.ports import Trouble

_BLOCK = 64 << 10


class LinesFile:
    """One file and its full ones: ``path``, ``path.1`` (the latest of them), ``path.2`` and so on.

    Args:
        path: the file; its folder is made.
        max_bytes: size at which a new file is begun; a longer line gets a file of its own.
        keep: full files that are kept.

    Raises:
        Trouble: the disk refuses; so from every method.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._handle = -1
        #: Bytes of a torn line that were cut off when the file was opened.
        self.repaired_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            self._repair()
        except OSError as error:
            self.close()
            raise self._explain(error) from error

    def append(self, line: bytes) -> None:
        """Write one line; ``line`` has no line end in it."""
        data = line + b"\n"
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            written = 0
            try:
                while written < len(data):
                    written += os.write(self._handle, data[written:])
            except OSError:
                os.ftruncate(self._handle, self._size)
                raise
            self._size += len(data)
        except OSError as error:
            raise self._explain(error) from error

    def sync(self) -> None:
        """Force what was written to the disk."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(self._path, flags, 0o644)
        self._size = os.fstat(self._handle).st_size

    def _repair(self) -> None:
        end = self._size
        while end:
            start = max(end - _BLOCK, 0)
            block = os.pread(self._handle, end - start, start)
            if (found := block.rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
        if end < self._size:
            self.repaired_bytes = self._size - end
            os.ftruncate(self._handle, end)
            self._size = end

    def _rotate(self) -> None:
        """Put the full file aside and begin a new one; what fails in the middle is gone on with by the next call."""
        full = self._handle
        os.fsync(full)
        if self._path.exists():  # else it was put aside, and only the new one could not be made
            for number in range(self._keep, 0, -1):
                older = self._numbered(number)
                newer = self._numbered(number - 1) if number > 1 else self._path
                if newer.exists():
                    newer.replace(older)
            if not self._keep:
                self._path.unlink()
        self._open()
        os.close(full)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _explain(self, error: OSError) -> Trouble:
        return Trouble(f"{self._path} cannot be written: {error.strerror}; is there space, and the right to write?")
