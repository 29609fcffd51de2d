"""A disk that loses in a power cut what was not synced, as real file systems do; and what it looks like afterwards.

`FragileDisk` does what `edge_agent.updates.disk.Disk` does and notes each step. `Journal.disks` replays the notes up to
any step and says what may be found on the disk if the power goes there:

- bytes of a file that were not synced are gone, cut, zeroed or garbage;
- names in a folder that was not synced are as they were before: made, renamed, linked and removed ones alike. A rename
  is there or not there, never in between. Steps that were not synced may survive in any selection;
- SQLite (WAL, synchronous FULL) is trusted: after `FragileStore` has returned from a write, the write is there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.updates.disk import Disk, Writing
from edge_agent.updates.store import UpdateStore

ROOT = 0


class Killed(BaseException):
    """The process ends here, as by SIGKILL: what programs have seen on the disk stays."""


@dataclass
class Found:
    """What a disk has after a power cut: names by folder, bytes by file, and SQLite's files."""

    folders: dict[int, dict[str, int]]
    files: dict[int, bytes]
    database: Mapping[str, bytes]

    def write(self, root: Path) -> None:
        """Make it real in an empty folder; files with several names are hard links again."""
        first: dict[int, Path] = {}
        for path, node in self._walk(ROOT, root):
            if node in self.folders:
                path.mkdir(exist_ok=True)
            elif node in first:
                os.link(first[node], path)
            else:
                path.write_bytes(self.files[node])
                first[node] = path
        for name, data in self.database.items():
            path = root / name
            if path.parent.is_dir():  # else the folder itself was lost
                path.write_bytes(data)

    def fingerprint(self) -> int:
        """The same for the same disk."""
        paths = [(str(path), self.files.get(node)) for path, node in self._walk(ROOT, Path())]
        return hash((tuple(paths), tuple(sorted(self.database.items()))))

    def _walk(self, folder: int, path: Path) -> Iterator[tuple[Path, int]]:
        for name, node in self.folders[folder].items():
            yield path / name, node
            if node in self.folders:
                yield from self._walk(node, path / name)


@dataclass
class _Pending:
    """Two views of the disk: what programs see, and what would be there without power."""

    seen: dict[int, dict[str, int]]
    there: dict[int, dict[str, int]]
    seen_bytes: dict[int, bytes]
    there_bytes: dict[int, bytes]
    steps: dict[int, list[tuple[tuple[str, int | None], ...]]] = field(default_factory=dict)
    database: Mapping[str, bytes] = field(default_factory=dict)

    def change(self, folder: int, *names: tuple[str, int | None]) -> None:
        """Names of a folder, each with what it means now or None, that change as one."""
        _apply(self.seen[folder], names)
        self.steps.setdefault(folder, []).append(names)


def _apply(folder: dict[str, int], names: tuple[tuple[str, int | None], ...]) -> None:
    for name, node in names:
        if node is None:
            folder.pop(name, None)
        else:
            folder[name] = node


class Journal:
    """Every step that was made on the disk below ``root``, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[tuple[Any, ...]] = []
        #: After this step nothing more is done: every further one raises `Killed`.
        self.kill_at: int | None = None
        self._numbers: dict[tuple[int, int], int] = {}  # inode → number; inodes are used again, so removal forgets
        self._folders: dict[Path, int] = {root: ROOT}
        self._next = ROOT + 1

    def note(self, *step: Any) -> None:
        self.steps.append(step)
        if self.kill_at is not None and len(self.steps) >= self.kill_at:
            raise Killed

    def new(self) -> int:
        self._next += 1
        return self._next

    def folder(self, path: Path) -> int:
        return self._folders[path]

    def made(self, path: Path) -> int:
        self._folders[path] = self.new()
        return self._folders[path]

    def moved(self, source: Path, target: Path) -> None:
        for path in [p for p in self._folders if p == source or source in p.parents]:
            self._folders[target / path.relative_to(source)] = self._folders.pop(path)

    def gone(self, path: Path) -> None:
        self._folders.pop(path, None)

    def file(self, path: Path) -> int:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in self._numbers:
            self._numbers[key] = self.new()
        return self._numbers[key]

    def forget(self, path: Path) -> None:
        status = path.stat()
        if status.st_nlink == 1:
            self._numbers.pop((status.st_dev, status.st_ino), None)

    # ── replay ────────────────────────────────────────────────────────────────────────────────

    def disks(self, survives: float = 0.0, chance: random.Random | None = None) -> Iterator[tuple[int, Found]]:
        """The disk after a power cut before the first step, after it, after the second …; and the number of steps.

        Args:
            survives: share of the steps that do although they were not synced: 0 is the worst, 1 is a killed process.
            chance: chooses them, and what is left of their bytes.
        """
        at = _Pending({ROOT: {}}, {ROOT: {}}, {}, {})
        chance = chance or random.Random(0)
        yield 0, _cut(at, survives, chance)
        for number, step in enumerate(self.steps, start=1):
            self._replay(at, *step)
            yield number, _cut(at, survives, chance)

    def _replay(self, at: _Pending, kind: str, *what: Any) -> None:
        match kind, what:
            case "mkdir", (folder, parent, name):
                at.seen[folder], at.there[folder] = {}, {}
                at.change(parent, (name, folder))
            case "create", (file, parent, name):
                at.seen_bytes[file] = b""
                at.change(parent, (name, file))
            case "bytes", (file, data):
                at.seen_bytes[file] = data
            case "sync_file", (file,):
                at.there_bytes[file] = at.seen_bytes[file]
            case "sync_folder", (folder,):
                at.there[folder] = dict(at.seen[folder])
                at.steps[folder] = []
            case "rename", (parent, old, new):
                at.change(parent, (old, None), (new, at.seen[parent][old]))
            case "link", (file, parent, name):
                at.change(parent, (name, file))
            case "remove", (parent, name):
                at.change(parent, (name, None))
            case "store", (files, _):
                at.database = files


def _cut(at: _Pending, survives: float, chance: random.Random) -> Found:
    folders = {number: dict(names) for number, names in at.there.items()}
    files = {number: at.there_bytes.get(number, b"") for number in at.seen_bytes}
    for folder, steps in at.steps.items():
        for names in steps:
            if chance.random() < survives:
                _apply(folders[folder], names)
    for number, seen in at.seen_bytes.items():
        if survives == 1:
            files[number] = seen
        elif survives and files[number] != seen:
            files[number] = _damaged(files[number], seen, chance)
    return Found(folders, files, at.database)


def _damaged(there: bytes, seen: bytes, chance: random.Random) -> bytes:
    """What may be left of bytes of which only ``there`` was synced."""
    keep = len(there) if seen.startswith(there) else 0
    cut = chance.randint(keep, len(seen))
    return chance.choice(
        [there, seen, seen[:cut], seen[:cut] + bytes(len(seen) - cut), seen[:cut] + chance.randbytes(len(seen) - cut)]
    )


class FragileDisk(Disk):
    """The real disk, with notes; it does not wait for the real drive.

    Args:
        root: folder whose own name is safe; everything below it is noted. Nothing may be in it.
    """

    def __init__(self, root: Path) -> None:
        self.journal = Journal(root)

    def mkdir(self, path: Path) -> None:
        if not path.is_dir():
            super().mkdir(path)
            self.journal.note("mkdir", self.journal.made(path), self.journal.folder(path.parent), path.name)

    def open(self, path: Path, *, keep: bool = False) -> Writing:
        new = not path.exists()
        file = _NotedWriting(path, keep=keep, journal=self.journal)
        if new:
            self.journal.note("create", self.journal.file(path), self.journal.folder(path.parent), path.name)
        self.journal.note("bytes", self.journal.file(path), path.read_bytes())
        return file

    def sync_file(self, path: Path) -> None:
        self.journal.note("sync_file", self.journal.file(path))

    def sync_folder(self, path: Path) -> None:
        if path in self.journal._folders:  # what lies above the root is safe
            self.journal.note("sync_folder", self.journal.folder(path))

    def rename(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "the model knows renames within one folder only"
        if target.exists():
            self.journal.forget(target)
        super().rename(source, target)
        self.journal.moved(source, target)
        self.journal.note("rename", self.journal.folder(source.parent), source.name, target.name)

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self.journal.note("link", self.journal.file(source), self.journal.folder(target.parent), target.name)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.journal.forget(path)
            super().unlink(path)
            self.journal.note("remove", self.journal.folder(path.parent), path.name)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self.journal.gone(path)
        self.journal.note("remove", self.journal.folder(path.parent), path.name)


class _NotedWriting(Writing):
    def __init__(self, path: Path, *, keep: bool, journal: Journal) -> None:
        super().__init__(path, keep=keep)
        self._path, self._journal = path, journal

    def write(self, data: bytes) -> None:
        super().write(data)
        self._file.flush()
        self._journal.note("bytes", self._journal.file(self._path), self._path.read_bytes())

    def sync(self) -> None:
        self._file.flush()
        self._journal.note("sync_file", self._journal.file(self._path))


class FragileStore(UpdateStore):
    """The real store; each write is noted with SQLite's files as they are then, and what is committed."""

    def __init__(self, path: Path, disk: FragileDisk) -> None:
        self._path, self._journal = path, disk.journal
        super().__init__(path, disk)
        self._note()

    def _write(self, *arguments: Any, **named: Any) -> None:
        super()._write(*arguments, **named)
        self._note()

    def _note(self) -> None:
        inside = self._path.relative_to(self._journal.root)
        names = [str(inside), f"{inside}-wal"]
        files = {
            name: (self._journal.root / name).read_bytes() for name in names if (self._journal.root / name).exists()
        }
        committed = self.committed()
        self._journal.note("store", files, None if committed is None else committed.release)
