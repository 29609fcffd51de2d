"""The data folder: made where it is missing, and used by one hub at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cloud_hub import exit_codes
from cloud_hub.errors import StartError


class DataFolder:
    """A folder that this process alone uses, from construction to ``close``. The lock ends with the process.

    Raises:
        StartError: another hub uses it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartError(
                f"the data folder {path} cannot be written: {error.strerror}",
                "check its permissions and the space on its disk, or name another one with --data",
                exit_codes.DATA_UNUSABLE,
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = (path / "hub.lock").read_text(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise StartError(
                f"another cloud-hub (process {owner}) uses the data folder {path}",
                "stop it first, or name another folder with --data",
                exit_codes.DATA_IN_USE,
            ) from error
        os.truncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let another hub use the folder."""
        os.close(self._lock)
