"""The index of a release: each file's path, SHA-256 and size. Its own SHA-256 is the release's digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from edgeloop.package.documents import canonical_json, read_json
from edgeloop.package.errors import PackageError
from edgeloop.records import dataclass

VERSION = 1
MAX_FILES = 20_000
MAX_INDEX_BYTES = 8 << 20
#: 64 GiB: larger than any model that a device runs.
MAX_FILE_BYTES = 64 << 30
MAX_PATH = 255

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9_.@+=,-]+(/[A-Za-z0-9_.@+=,-]+)*")


def check_path(path: object) -> str:
    """A relative POSIX path of plain ASCII that stays inside its folder on every file system.

    Raises:
        PackageError: it is anything else.
    """
    if not isinstance(path, str) or len(path) > MAX_PATH or not _PATH.fullmatch(path):
        raise PackageError(f"{str(path)[:80]!r} is no plain relative path; letters, digits and _.@+=,- are allowed")
    if any(part in (".", "..") or part.endswith(".") for part in path.split("/")):
        raise PackageError(f"{path!r} leaves the package, or means another file elsewhere")
    return path


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class IndexEntry:
    """One file: its path inside the package, its SHA-256 (64 hex digits) and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Index:
    """All files of a release, ordered by path."""

    entries: tuple[IndexEntry, ...]

    @cached_property
    def by_path(self) -> dict[str, IndexEntry]:
        """Entries by path."""
        return {entry.path: entry for entry in self.entries}

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and the SHA-256 of the canonical bytes: the release's identity."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same bytes for the same files, everywhere."""
        files = [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in self.entries]
        return canonical_json({"files": files, "v": VERSION})

    @classmethod
    def parse(cls, data: bytes) -> Index:
        """Read an index from outside.

        Raises:
            PackageError: it is not canonical, or names a file that cannot be.
        """
        found = read_json(data, "the index", max_bytes=MAX_INDEX_BYTES)
        if found.get("v") != VERSION or set(found) != {"files", "v"} or not isinstance(found["files"], list):
            raise PackageError(f'the index has to be {{"files": […], "v": {VERSION}}}')
        if not 0 < len(found["files"]) <= MAX_FILES:
            raise PackageError(f"the index names {len(found['files'])} files; 1 to {MAX_FILES} are allowed")
        index = cls.of(_entry(item) for item in found["files"])
        if index.to_bytes() != data:
            raise PackageError(
                "the index is not canonical JSON (sorted by path, no spaces); its digest would be ambiguous"
            )
        return index

    @classmethod
    def of(cls, entries: Iterable[IndexEntry]) -> Index:
        """An index of entries in any order.

        Raises:
            PackageError: two paths are the same where case is ignored, or one is a folder of another.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        folded = [entry.path.casefold() for entry in ordered]
        if len(set(folded)) != len(folded):
            raise PackageError("two paths of the index differ in case alone, or not at all")
        parents = {str(parent) for path in folded for parent in PurePosixPath(path).parents}
        if clash := parents.intersection(folded):
            raise PackageError(f"{min(clash)} is a file and a folder at once")
        return cls(ordered)

    @classmethod
    def of_folder(cls, root: Path) -> Index:
        """Index what lies in a folder.

        Raises:
            PackageError: a symlink or something else that is no regular file lies there.
        """
        entries = []
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise PackageError(f"{name} is no regular file; a package holds files and folders only")
            if path.is_file():
                entries.append(IndexEntry(check_path(name), hash_file(path), path.stat().st_size))
        return cls.of(entries)


def _entry(item: object) -> IndexEntry:
    if not isinstance(item, dict) or set(item) != {"path", "sha256", "size"}:
        raise PackageError("a file of the index has to have path, sha256 and size, and nothing else")
    path, sha256, size = check_path(item["path"]), item["sha256"], item["size"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise PackageError(f"{path!r}: sha256 has to be 64 hex digits")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise PackageError(f"{path!r}: size has to be 0 to {MAX_FILE_BYTES} bytes")
    return IndexEntry(path, sha256, size)
