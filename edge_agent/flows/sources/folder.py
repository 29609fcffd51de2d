"""A folder that is watched: pictures, arrays and raw tensors, each taken once, also over restarts.

A file is taken when nobody writes to it any more: its name has no leading dot, and its size and time have stayed the
same for a while. What the sinks have is marked durably before it is moved or deleted, so that a file which cannot be
moved is not taken again and again. Between a sink's taking of a result and the mark lies a moment: an agent that is
killed in it takes the file once more, under the same prediction id.
"""

from __future__ import annotations

import fnmatch
import hashlib
import heapq
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_agent.flow_settings import PICTURES, FolderSourceSettings, library
from edge_agent.flows.contents import NpyReader, NpzReader, RawReader, Reader
from edge_agent.flows.marks import Marks, Stamp
from edge_agent.flows.pictures import PictureReader
from edge_agent.flows.ports import Gone, Item, Reading, Rejected, Trouble
from edge_agent.flows.shelf import Shelf
from edge_agent.logs import Log
from edge_agent.serving.calls import Described

log = Log(__name__)

#: Files that one look finds, the oldest first: a folder of millions costs no more memory than these.
AT_ONCE = 256
#: A folder whose own time has not changed is looked at again after so many seconds all the same: a file in it may have.
FULL_LOOK_S = 60.0
#: Marks of files that have left the folder are forgotten so often, and files that could not be moved tried again.
TIDY_S = 3600.0
#: Some file systems keep times in steps of two seconds, so a younger time says nothing yet.
COARSE_S = 3.0
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """A file: its name, and what it was when it was seen."""

    name: str
    stamp: Stamp


class FolderSource:
    """Implements `edge_agent.flows.ports.Source`.

    Args:
        settings: see docs/reference/flows.md.
        state: folder for the marks.
        now: a clock that only goes forward, seconds.
    """

    live = False

    def __init__(self, settings: FolderSourceSettings, state: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._state, self._now = settings, state, now
        self._path = settings.path
        self._readers: dict[str, Reader] = {
            ".npy": NpyReader(settings.input, settings.max_bytes),
            ".npz": NpzReader(settings.max_bytes),
        }
        if settings.tensor is not None:
            self._readers[".raw"] = RawReader(settings.input, settings.tensor)
        self._ready: deque[Found] = deque()
        self._settling: dict[str, tuple[Stamp, float]] = {}
        self._seen_mtime_ns = -1
        self._next_look = self._next_full_look = self._next_tidy = 0.0
        self._ignored = self._stuck = 0

    # ── ports.Source ──────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Make the folders, read the marks, and finish what a kill interrupted."""
        settings = self._settings
        if library(settings) is not None:
            self._pictures()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._rejected = Shelf(settings.rejected or self._path / "rejected", settings.keep_files)
            self._shelves = [self._rejected]
            if settings.after == "move":
                self._done = Shelf(settings.done or self._path / "done", settings.keep_files)
                self._shelves.append(self._done)
            for shelf in self._shelves:
                if shelf.folder.stat().st_dev != self._path.stat().st_dev:
                    raise Trouble(f"{shelf.folder} is on another disk than {self._path}: files cannot be moved there")
        except OSError as error:
            raise Trouble(f"{error.filename} cannot be used: {error.strerror}") from error
        self._marks = Marks(self._state / "marks.db")
        self._ready.clear()
        self._settling.clear()
        self._seen_mtime_ns, self._next_look = -1, self._now()
        self._tidy(self._now())

    def next(self, timeout_s: float) -> Item | None:
        """The oldest file that is whole and was not taken; the folder is looked at when none is left."""
        until = self._now() + timeout_s
        while not self._ready:
            now = self._now()
            if now >= self._next_look:
                self._look(now)
            elif now >= until:
                return None
            else:
                time.sleep(max(min(self._next_look, until) - now, 0.001))
        return self._item(self._ready.popleft())

    def read(self, item: Item, described: Described) -> Reading:
        """The file's tensors, by what its ending says it is."""
        found: Found = item.body
        ending = Path(found.name).suffix.lower()
        reader = self._pictures() if ending in PICTURES else self._readers.get(ending)
        if reader is None:
            hint = "; set tensor to say what its bytes are" if ending == ".raw" else ""
            raise Rejected(f"nothing reads {ending or 'a file without an ending'}{hint}")
        return reader(self._bytes(found), described)

    def done(self, item: Item) -> None:
        """Mark the file, then delete or move it."""
        self._finish(item.body, "")

    def reject(self, item: Item, reason: str) -> None:
        """Mark the file, then move it to ``rejected``, with the reason beside it."""
        self._finish(item.body, reason or "rejected")

    def close(self) -> None:
        """Close the marks."""
        if hasattr(self, "_marks"):
            self._marks.close()

    def counts(self) -> Mapping[str, int]:
        """``ignored``: entries that are links or devices, at the last look; ``stuck``: files that cannot be moved."""
        return {"dropped": 0, "ignored": self._ignored, "stuck": self._stuck}

    @property
    def trouble(self) -> str:
        """Its troubles are raised."""
        return ""

    # ── looking ───────────────────────────────────────────────────────────────────────────────

    def _look(self, now: float) -> None:
        self._next_look = now + self._settings.poll_s
        if now >= self._next_tidy:
            self._tidy(now)
        try:
            mtime_ns = self._path.stat().st_mtime_ns
            if mtime_ns == self._seen_mtime_ns and not self._settling and now < self._next_full_look:
                return
            found = heapq.nsmallest(AT_ONCE, self._candidates(), key=lambda file: (file.stamp.mtime_ns, file.name))
        except OSError as error:
            raise Trouble(f"{self._path} cannot be read: {error.strerror}") from error
        whole = len(found) < AT_ONCE and time.time() - mtime_ns / 1e9 > COARSE_S
        self._seen_mtime_ns, self._next_full_look = mtime_ns if whole else -1, now + FULL_LOOK_S
        before, self._settling = self._settling, {}
        for file in found:
            stamp, since = before.get(file.name, (file.stamp, now))
            if stamp != file.stamp:
                since = now
            if now - since >= self._settings.settle_s:
                self._ready.append(file)
            else:
                self._settling[file.name] = (file.stamp, since)

    def _candidates(self) -> Iterator[Found]:
        """Regular files with a wanted name that were not taken."""
        self._ignored = 0
        patterns = [pattern.lower() for pattern in self._settings.patterns]
        with os.scandir(self._path) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith(".") or not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # taken away meanwhile
                    continue
                file = Found(entry.name, Stamp(status.st_size, status.st_mtime_ns))
                if not stat.S_ISREG(status.st_mode):
                    self._ignored += 1
                elif not self._marks.has(os.fsencode(file.name), file.stamp):
                    yield file

    def _item(self, file: Found) -> Item:
        text = b"%s/%d/%d" % (os.fsencode(file.name), *file.stamp)
        identity = f"{self._settings.name}-{hashlib.blake2b(text, digest_size=10).hexdigest()}"
        shown = os.fsencode(file.name).decode(errors="replace")
        return Item(shown, {"file": shown}, file, identity)

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    def _bytes(self, file: Found) -> bytes:
        """The file's bytes, if it is still the one that was seen, and no link."""
        limit = self._settings.max_bytes
        try:
            handle = os.open(self._path / file.name, _NO_FOLLOW)
        except FileNotFoundError as error:
            raise Gone(f"{file.name!r} is not there any more") from error
        except OSError as error:
            raise Rejected(f"it cannot be opened: {error.strerror}") from error
        with os.fdopen(handle, "rb") as opened:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Rejected("it is no regular file")
            if status.st_size > limit:
                raise Rejected(f"it has {status.st_size} bytes; max_bytes is {limit}")
            data = opened.read(limit + 1)
            status = os.fstat(handle)
        if Stamp(status.st_size, status.st_mtime_ns) != file.stamp or len(data) != file.stamp.size:
            raise Gone(f"{file.name!r} has changed since it was seen")
        return data

    def _finish(self, file: Found, reason: str) -> None:
        self._marks.add(os.fsencode(file.name), file.stamp, reason)
        self._dispose(file, reason)

    def _dispose(self, file: Found, reason: str) -> None:
        """Have a marked file leave the folder. One that cannot stays, marked, and keeps nobody else waiting."""
        path, after = self._path / file.name, self._settings.after
        try:
            if reason:
                self._rejected.take(path, reason)
            elif after == "delete":
                path.unlink()
            elif after == "move":
                self._done.take(path)
            else:
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            self._stuck += 1
            if self._stuck == 1:
                log.warning("a file was taken and cannot be moved or deleted", file=str(path), reason=error.strerror)
            return
        self._marks.remove(os.fsencode(file.name))

    def _tidy(self, now: float) -> None:
        """What a kill left between a mark and its file's leaving; marks of files that are gone are forgotten."""
        self._next_tidy, self._stuck = now + TIDY_S, 0
        for name, stamp, reason in self._marks.all():
            try:
                status = (self._path / os.fsdecode(name)).lstat()
            except OSError:
                self._marks.remove(name)
                continue
            if Stamp(status.st_size, status.st_mtime_ns) == stamp:
                self._dispose(Found(os.fsdecode(name), stamp), reason)

    def _pictures(self) -> Reader:
        reader = self._readers.get(PICTURES[0])
        if reader is None:
            reader = PictureReader(self._settings.input, self._settings.picture)
            self._readers.update(dict.fromkeys(PICTURES, reader))
        return reader
