"""What builds have made before, by the content that it was made of: a folder of files that parallel builds share.

An entry is one file, ``v1/<step>/<key>.<sha256>``. It appears by a rename, so a killed build leaves no half of one; its
name carries the hash of its bytes, so damage is seen when it is read and costs nothing but the work. When the folder
holds more than it may, what was used longest ago goes.

Whoever can write into the folder decides what builds find there: it is private to its owner.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from edgeloop.whole_files import make_private_folder
from model_export.errors import RequestError

ENVIRONMENT = "MODEL_EXPORT_CACHE"
#: Enough for a hundred builds of a MobileNetV2 (14 MB, a few steps each).
LIMIT_BYTES = 4 << 30
LAYOUT = "v1"
#: Seconds after which a half-written file belongs to a build that was killed.
_STALE_S = 24 * 3600.0
_STEP, _KEY = re.compile(r"[a-z][a-z0-9-]{0,31}"), re.compile(r"[0-9a-f]{64}")


def default_folder() -> Path | None:
    """Where the platform keeps what can be made again: `ENVIRONMENT`, else the user's cache folder.

    Returns:
        None where the variable is there and empty: nothing shall be kept.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen is not None:
        return Path(chosen) if chosen else None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        # The XDG base directory specification: a relative path there is to be ignored.
        told = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = told if told.is_absolute() else Path.home() / ".cache"
    return base / "edgeloop" / "model-export"


class Cache:
    """Files by step and key.

    A cache that cannot be written is no reason for a build to fail: it then keeps nothing.

    Attributes:
        folder: where they are; None: nothing is kept, nothing found.
    """

    def __init__(self, folder: Path | None, limit_bytes: int = LIMIT_BYTES) -> None:
        """Open a folder, which is made with the first entry.

        Args:
            folder: on one file system, so that a rename is atomic.
            limit_bytes: of all entries together.

        Raises:
            RequestError: something else than a folder is there.
        """
        self.folder = None if folder is None else Path(folder)
        self._limit = limit_bytes
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise RequestError(f"{self.folder} is no folder, so nothing can be cached there", "--cache FOLDER")

    def read(self, step: str, key: str) -> bytes | None:
        """The bytes of an entry, or None."""
        for path in self._files(step, key):
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if _whole(path, hashlib.sha256(data).hexdigest()):
                return data
        return None

    def write(self, step: str, key: str, data: bytes) -> None:
        """Keep bytes under a key; the last ones count."""
        place = self._place(step, key)
        if place is None or self.folder is None:
            return
        target = place / f"{key}.{hashlib.sha256(data).hexdigest()}"
        new = place / f".{key[:16]}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            if not self.folder.exists():  # one that a person has made has the permissions that they chose
                make_private_folder(self.folder)
            place.mkdir(parents=True, exist_ok=True)
            try:
                new.write_bytes(data)
                new.replace(target)
            finally:
                new.unlink(missing_ok=True)
        except OSError:
            return
        for path in self._files(step, key):
            if path != target:
                path.unlink(missing_ok=True)
        self._shrink(target)

    def _place(self, step: str, key: str) -> Path | None:
        if not _STEP.fullmatch(step) or not _KEY.fullmatch(key):
            raise ValueError(f"{step!r}, {key!r}: a step is a word, a key 64 hex digits")
        return None if self.folder is None else self.folder / LAYOUT / step

    def _files(self, step: str, key: str) -> list[Path]:
        """Files of an entry: one, or two for the moment in which another build replaces it."""
        place = self._place(step, key)
        return [] if place is None else sorted(place.glob(f"{key}.*"), key=_used, reverse=True)

    def _shrink(self, newest: Path) -> None:
        """Take away what was used longest ago, until the rest fits; the newest stays if it fits alone."""
        entries, now = [], time.time()
        for path in newest.parent.parent.glob("*/*"):
            with suppress(OSError):
                stat = path.stat()
                if not path.name.startswith("."):
                    entries.append((stat.st_mtime_ns, path != newest, stat.st_size, path))
                elif now - stat.st_mtime > _STALE_S:
                    path.unlink()
        over = sum(size for _, _, size, _ in entries) - self._limit
        for _, _, size, path in sorted(entries, key=lambda entry: (not entry[1], entry[0])):
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _whole(path: Path, digest: str) -> bool:
    """Whether the bytes are those that were written; what is damaged goes, what is whole has been used just now."""
    whole = path.name.rpartition(".")[2] == digest
    with suppress(OSError):
        os.utime(path) if whole else path.unlink()
    return whole
