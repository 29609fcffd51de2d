"""Files of releases on the device: each once, by its SHA-256; a release is a folder of hard links to them.

A file is written beside its place, synced, renamed, and its folder synced: after a power cut it is whole or not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from edge_agent.updates.disk import Disk
from edge_agent.updates.errors import Refused
from edgeloop.package import Index, IndexEntry, PackageError
from edgeloop.package.index import hash_file
from edgeloop.runtime import missing_because, providers_for


class ReleaseFiles:
    """``<data>/blobs`` and ``<data>/releases``."""

    def __init__(self, data: Path, disk: Disk | None = None) -> None:
        """Make the folders where they are missing.

        Args:
            data: the agent's data folder.
            disk: changes files.
        """
        self.data, self.disk = data, disk or Disk()
        self.blobs, self.releases = data / "blobs", data / "releases"
        self.disk.make_folder(self.blobs)
        self.disk.make_folder(self.releases)

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
        """Make a part that is whole and checked the blob; its bytes are on the disk before its name is."""
        part = self.part(sha256)
        self.disk.sync_file(part)  # an earlier life may have written it, and been killed before it could do this
        self.disk.rename(part, self.blob(sha256))
        self.disk.sync_folder(self.blobs)

    def folder(self, release: str) -> Path:
        """Folder of a release."""
        return self.releases / release.removeprefix("sha256:")

    def _index_file(self, release: str) -> Path:
        return self.releases / f"{release.removeprefix('sha256:')}.index"

    def save_index(self, index: Index) -> None:
        """Keep a release's index."""
        self.disk.replace(self._index_file(index.digest), index.to_bytes())

    def index(self, release: str) -> Index | None:
        """A release's index, or None when it is not here or not what the digest says."""
        try:
            index = Index.parse(self._index_file(release).read_bytes())
        except (OSError, PackageError):
            return None
        return index if index.digest == release else None

    def assemble(self, release: str, entries: Collection[IndexEntry]) -> Path:
        """Make the folder of a release from blobs. One that is whole is left alone: it may be the release before.

        Raises:
            OSError: the disk does not take it.
        """
        folder = self.folder(release)
        if all(_same_file(folder / entry.path, self.blob(entry.sha256)) for entry in entries):
            # An earlier life may have made it, and been killed before it could do this.
            self._sync([folder, *(path for path in folder.rglob("*") if path.is_dir()), self.releases])
            return folder
        building = folder.with_name(f".{folder.name}.new")
        self.disk.remove_tree(building)
        self.disk.mkdir(building)
        folders = [building]
        for entry in entries:
            path = building / entry.path
            for above in reversed(path.relative_to(building).parents):
                if not (building / above).is_dir():
                    self.disk.mkdir(building / above)
                    folders.append(building / above)
            self.disk.link(self.blob(entry.sha256), path)
        self._sync(folders)
        if folder.exists():
            self.disk.remove_tree(folder)
        self.disk.rename(building, folder)
        self.disk.sync_folder(self.releases)
        return folder

    def _sync(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            self.disk.sync_folder(folder)

    def drop_damaged(self, entries: Iterable[IndexEntry]) -> list[str]:
        """Remove blobs whose bytes are no longer those of their name, to be fetched again; returns their paths."""
        damaged = []
        for entry in entries:
            path = self.blob(entry.sha256)
            if not path.is_file() or hash_file(path) != entry.sha256:
                self.disk.unlink(path)
                damaged.append(entry.path)
        return damaged

    def collect(self, keep: Collection[str], spare: Collection[str] = ()) -> int:
        """Remove releases and files that nobody needs; returns the bytes freed.

        Args:
            keep: digests of releases that stay.
            spare: SHA-256 of files that stay although no release has them yet: those of an update under way.

        Raises:
            OSError: something could not be removed.
        """
        names = {release.removeprefix("sha256:") for release in keep}
        for path in self.releases.iterdir():
            if path.name.removesuffix(".index") not in names:
                self.disk.remove_tree(path)
        freed = 0
        for path in self.blobs.iterdir():
            status = path.stat()
            if status.st_nlink == 1 and path.name.removesuffix(".part") not in spare:
                freed += status.st_size
                self.disk.unlink(path)
        return freed


def _same_file(path: Path, blob: Path) -> bool:
    return path.is_file() and blob.is_file() and path.samefile(blob)


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
    if required and not allowed:
        lacks = "; ".join(missing_because(provider) for provider in sorted(required))
        raise Refused(f"the policy requires {' or '.join(sorted(required))}: {lacks}")
    chosen = tuple(name for name, provider in offered.items() if providers_for(provider, allowed))
    if not chosen:
        raise Refused(
            f"no variant of the release runs here: it has {', '.join(f'{n} ({p})' for n, p in offered.items())}; "
            f"this device may use {', '.join(sorted(allowed))}"
        )
    return chosen
