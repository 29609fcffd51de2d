"""The blob store: a folder of files, each named by its own sha256.

Rules:

1. A blob is visible under its name only after its content was hashed, written and synced: what is there is whole.
2. A blob never changes. Writing one that is there is a success.
3. A file that a stopped hub left half written is under ``incoming/`` and is removed at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from cloud_hub.errors import BadRequest, NotFound, StorageFull, TooLarge

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_CHUNK = 1 << 20


def check_sha256(sha256: str) -> str:
    """Return ``sha256`` when it is 64 lower-case hexadecimal digits.

    Raises:
        BadRequest: it is not.
    """
    if not _SHA256.fullmatch(sha256):
        raise BadRequest(f"{sha256[:80]!r} is not a sha256: 64 digits of 0-9 a-f")
    return sha256


class Blobs:
    """Blobs below ``folder``.

    Args:
        folder: is made where it is missing.
        max_bytes: largest blob that is taken.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 4 << 30) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def path(self, sha256: str) -> Path:
        """Path of a blob that is there.

        Raises:
            NotFound: it is not there.
        """
        path = self._place(check_sha256(sha256))
        if not path.is_file():
            raise NotFound(f"there is no blob {sha256}", "send it with PUT /api/v1/blobs/<sha256>")
        return path

    def has(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self._place(check_sha256(sha256)).is_file()

    def size(self, sha256: str) -> int:
        """Bytes of a blob; raises `NotFound`."""
        return self.path(sha256).stat().st_size

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob from its chunks and return its bytes.

        Raises:
            BadRequest: the content has another hash.
            TooLarge: it is larger than ``max_bytes``.
            StorageFull: the disk is full or refuses to write.
        """
        with self.writer(sha256) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def put_file(self, source: Path, sha256: str) -> int:
        """Store a copy of ``source``; errors as in :meth:`put`."""
        with source.open("rb") as file:
            return self.put(sha256, iter(lambda: file.read(_CHUNK), b""))

    def writer(self, sha256: str) -> BlobWriter:
        """A writer for one blob; nothing is stored before its ``commit``."""
        return BlobWriter(check_sha256(sha256), self._place(sha256), self._incoming, self.max_bytes)

    def link(self, sha256: str, target: Path) -> None:
        """Make ``target`` the same file as the blob: it costs no space.

        Raises:
            NotFound: there is no such blob.
            StorageFull: the folder cannot be written.
        """
        source = self.path(sha256)
        try:
            os.link(source, target)
        except OSError as error:
            raise storage_error(error, f"linking {target.name}") from error

    def remove(self, sha256: str) -> None:
        """Let go of a blob; one that is not there is a success. Whoever has linked it keeps it."""
        self._place(check_sha256(sha256)).unlink(missing_ok=True)

    def _place(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256


class BlobWriter:
    """Writes one blob: hash and size are checked while the bytes pass. Use it in ``with``."""

    def __init__(self, sha256: str, target: Path, incoming: Path, max_bytes: int) -> None:
        self._sha256, self._target, self._max_bytes = sha256, target, max_bytes
        self._temporary = incoming / f"{sha256[:16]}-{secrets.token_hex(8)}"
        self._hash, self._size, self._done = hashlib.sha256(), 0, False
        try:
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise storage_error(error, "a blob") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            TooLarge: more bytes than a blob may have.
            StorageFull: the disk is full or refuses to write.
        """
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise TooLarge(f"the blob is larger than {self._max_bytes} bytes", "raise max_blob_bytes of the hub")
        self._hash.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise storage_error(error, "a blob") from error

    def commit(self) -> int:
        """Make the blob visible, durably, and return its bytes.

        Raises:
            BadRequest: the content's hash is another one than was announced.
            StorageFull: the disk is full or refuses to write.
        """
        found = self._hash.hexdigest()
        if found != self._sha256:
            raise BadRequest(
                f"the content's sha256 is {found}, announced was {self._sha256}", "the file changed, or was cut: repeat"
            )
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._target.parent.mkdir(exist_ok=True)
            self._temporary.replace(self._target)
            sync_folder(self._target.parent)
        except OSError as error:
            raise storage_error(error, "a blob") from error
        self._done = True
        return self._size

    def close(self) -> None:
        """Drop what was not committed."""
        if not self._done:
            self._done = True
            try:
                self._file.close()
            except OSError:  # a full disk refuses the last buffer: the file goes anyway
                pass
            finally:
                self._temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(error: OSError, what: str) -> StorageFull:
    """The hub's error for a failed write of its own."""
    if error.errno in _FULL:
        hint = "free space on the hub's data disk, then repeat; nothing was changed"
    else:
        hint = "check the permissions of the hub's data folder"
    return StorageFull(f"{what} cannot be written: {error.strerror or error}", hint)
