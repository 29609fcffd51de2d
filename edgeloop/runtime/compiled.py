"""What providers compile, kept on the disk: TensorRT's engines and timings, EP-context models, other caches.

::

    <folder>/<machine>/<release>/<variant>-<provider>/    engines, compiled models; gone with the release
    <folder>/<machine>/timing/                            TensorRT's timings of kernels, of all releases

``<machine>`` is a digest of device, driver and onnxruntime (`fingerprint.MACHINE`): what another machine, driver or
version has compiled is removed, since onnxruntime would load it, and be wrong or crash. A release has its own folder
because TensorRT names an engine after the graph and not after the weights: with a new head under the same graph it
would load the engine of the old one.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

TIMING = "timing"


class Compiled:
    """A folder of compiled models for one machine."""

    def __init__(self, folder: Path, machine: str, max_bytes: int = 2 << 30) -> None:
        """Name the folder; nothing is made or removed yet.

        Args:
            folder: of the cache.
            machine: `Fingerprint.machine`.
            max_bytes: beyond which the oldest releases' parts are removed.
        """
        self._folder, self._max_bytes = folder, max_bytes
        self.root = folder / machine

    def drop_stale(self) -> None:
        """Remove what was compiled for another machine, driver or version."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path != self.root:
                remove(path)

    @classmethod
    def temporary(cls) -> Compiled:
        """A cache for one session: `drop` removes it."""
        import tempfile

        return cls(Path(tempfile.mkdtemp(prefix="edgeloop-")), "once")

    def drop(self) -> None:
        """Remove all of it."""
        remove(self._folder)

    def of(self, release: str, variant: str, provider: str) -> Path:
        """The folder of one variant of a release on one provider; it exists when this returns."""
        folder = self.root / release.removeprefix("sha256:")[:32] / f"{variant}-{provider}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def timing(self) -> Path:
        """The folder of timings; it exists when this returns."""
        folder = self.root / TIMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, releases: Collection[str]) -> None:
        """Remove what belongs to other releases, then the oldest of what is too much."""
        if not self.root.is_dir():
            return
        names = {release.removeprefix("sha256:")[:32] for release in releases} | {TIMING}
        for path in self.root.iterdir():
            if path.name not in names:
                remove(path)
        sizes = {path: size_of(path) for path in self.root.iterdir()}
        for path in sorted(sizes, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) <= self._max_bytes:
                return
            remove(path)
            del sizes[path]


def remove(folder: Path) -> None:
    """Remove a folder with what is in it, as far as the disk lets us."""
    import shutil  # it brings compressors along, which a start does not need

    shutil.rmtree(folder, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
