"""Files of releases on the device: each once, by its SHA-256; a release is a folder of hard links to them.

A file is written beside its place, synced, renamed, and its folder synced: after a power cut it is whole or not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from edge_agent.updates.errors import Refused
from edgeloop.package import Index, IndexEntry, PackageError


class ReleaseFiles:
    """``<data>/blobs`` and ``<data>/releases``."""

    def __init__(self, data: Path) -> None:
        self.blobs, self.releases = data / "blobs", data / "releases"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.releases.mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        """Where a file lies, or will."""
        return self.blobs / sha256

    def part(self, sha256: str) -> Path:
        """Where a file is written before it is whole."""
        return self.blobs / f"{sha256}.part"

    def has(self, entry: IndexEntry) -> bool:
        """Whether a file is here. Its bytes were checked when it was placed, and the audit checks them again."""
        path = self.blob(entry.sha256)
        return path.is_file() and path.stat().st_size == entry.size

    def place(self, sha256: str) -> None:
        """Make a part that is whole, checked and synced the blob."""
        self.part(sha256).rename(self.blob(sha256))
        sync_folder(self.blobs)

    def folder(self, release: str) -> Path:
        """Folder of a release."""
        return self.releases / release.removeprefix("sha256:")

    def _index_file(self, release: str) -> Path:
        return self.releases / f"{release.removeprefix('sha256:')}.index"

    def save_index(self, index: Index) -> None:
        """Keep a release's index."""
        path = self._index_file(index.digest)
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(index.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(self.releases)

    def index(self, release: str) -> Index | None:
        """A release's index, or None when it is not here or not what the digest says."""
        try:
            index = Index.parse(self._index_file(release).read_bytes())
        except (OSError, PackageError):
            return None
        return index if index.digest == release else None

    def assemble(self, release: str, entries: Iterable[IndexEntry]) -> Path:
        """Make the folder of a release from blobs; what stood there before is replaced.

        Raises:
            OSError: the disk does not take it.
        """
        folder = self.folder(release)
        building = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(building, ignore_errors=True)
        for entry in entries:
            path = building / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.blob(entry.sha256), path)
        for path in (building, *(p for p in building.rglob("*") if p.is_dir())):
            sync_folder(path)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
        sync_folder(self.releases)
        return folder

    def drop(self, entries: Iterable[IndexEntry]) -> None:
        """Remove blobs that turned out to be damaged, so that they are fetched again."""
        for entry in entries:
            self.blob(entry.sha256).unlink(missing_ok=True)

    def collect(self, keep: Collection[str]) -> int:
        """Remove releases that are not in ``keep``, then files that no release uses; returns the bytes freed."""
        names = {release.removeprefix("sha256:") for release in keep}
        for path in self.releases.iterdir():
            if path.name.removesuffix(".index").removesuffix(".part") in names:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        freed = 0
        for path in self.blobs.iterdir():
            status = path.stat()
            if status.st_nlink == 1:
                freed += status.st_size
                path.unlink()
        return freed


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def variants_for(providers: Collection[str], required: Collection[str], offered: dict[str, str]) -> tuple[str, ...]:
    """Names of the variants that this device may run.

    Args:
        providers: that this onnxruntime has.
        required: of which one has to be used; empty: any.
        offered: variant → execution provider.

    Raises:
        Refused: there is none.
    """
    allowed = set(providers) & set(required) if required else set(providers)
    if missing := [] if allowed else sorted(required):
        raise Refused(
            f"the policy requires {' or '.join(missing)}, which this onnxruntime lacks (it has {', '.join(providers)})"
        )
    chosen = tuple(name for name, provider in offered.items() if provider in allowed)
    if not chosen:
        raise Refused(
            f"no variant of the release runs here: it has {', '.join(f'{n} ({p})' for n, p in offered.items())}; "
            f"this device may use {', '.join(sorted(allowed))}"
        )
    return chosen
