"""The system shared-memory extension: tensors that lie in memory which a client on the same machine has made.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md. A camera process
writes a frame once, and the session reads it where it lies. Both sides trust each other that far: whoever may register
memory can have the agent read it, and write to it. So only keys with an allowed prefix are opened.
"""

from __future__ import annotations

import _posixshmem
import errno
import mmap
import os
import re
import stat
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from edge_agent.serving.errors import BadRequest, Forbidden, NotFound
from edge_agent.serving.lost_memory import Watch

#: Each holds a file descriptor and address space, until it is unregistered.
MOST_REGIONS = 64
MAX_NAME = 256
#: The C library puts what follows the slash below /dev/shm: one name, no path. It follows no symbolic link.
_KEY = re.compile(r"/(?!\.{1,2}\Z)[^/\0\ud800-\udfff]{1,250}")
_LARGEST = 1 << 62


class Region:
    """A piece of a shared-memory object, mapped. It is unmapped when nothing uses it any more."""

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map it.

        Raises:
            BadRequest: there is no such object, or it is too small.
        """
        self.name, self.key, self.offset, self.byte_size = name, key, offset, byte_size
        try:
            descriptor, self.writable = _open(key)
        except OSError as error:
            raise BadRequest(f"shared memory {key!r} cannot be opened: {error.strerror}") from error
        try:
            self._must_hold(os.fstat(descriptor).st_size)
            # A mapping begins at a page. It keeps a descriptor of its own, which is asked for the size later on.
            self._skipped = offset % mmap.ALLOCATIONGRANULARITY
            access = mmap.ACCESS_WRITE if self.writable else mmap.ACCESS_READ
            size = byte_size + self._skipped
            self._memory = mmap.mmap(descriptor, size, access=access, offset=offset - self._skipped)
        except (OSError, ValueError) as error:
            raise BadRequest(f"shared memory {key!r} cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)
        self._watch = Watch(self._memory)

    def view(self, offset: int, byte_size: int) -> memoryview:
        """A part of it as it is now, where it lies.

        Raises:
            BadRequest: it has no such part, or no longer.
        """
        self.check()
        if offset < 0 or byte_size < 0 or offset + byte_size > self.byte_size:
            raise BadRequest(
                f"shared memory region {self.name!r} has {self.byte_size} bytes; {byte_size} at {offset} are not in it"
            )
        start = self._skipped + offset
        return memoryview(self._memory)[start : start + byte_size]

    def check(self) -> None:
        """Hold the object to what it was when it was registered.

        Raises:
            BadRequest: it was cut short, now or while it was used.
        """
        if self._watch.lost:
            raise BadRequest(
                f"the memory of region {self.name!r} was taken away while it was used; unregister it, and register "
                "one that stays as long as it is"
            )
        self._must_hold(self._memory.size())

    def _must_hold(self, size: int) -> None:
        if self.offset + self.byte_size > size:
            raise BadRequest(
                f"shared memory {self.key!r} has {size} bytes; region {self.name!r} takes {self.byte_size} at "
                f"{self.offset}"
            )


class SharedMemory:
    """The regions that clients have registered, by name; any thread may use it."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        """Allow keys that begin with one of ``prefixes``; ``/`` allows every one."""
        self._prefixes = tuple(prefixes)
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map a piece of a shared-memory object under a name.

        Args:
            name: the region's, for requests.
            key: the object's, ``/`` and a name, as ``shm_open`` takes it. The slash may be missing.
            offset: where the region begins in the object, bytes.
            byte_size: its size, bytes.

        Raises:
            BadRequest: the name is taken, a number makes no sense, or there is no such object of that size.
            Forbidden: the key has no allowed prefix.
        """
        key = key if key.startswith("/") else "/" + key
        if not name or len(name) > MAX_NAME:
            raise BadRequest(f"a region's name has 1 to {MAX_NAME} characters")
        if not _KEY.fullmatch(key):
            raise BadRequest(
                f"the key {key!r:.300} is no name of shared memory; it has to be /name, as shm_open takes it"
            )
        if not key.startswith(self._prefixes):
            allowed = ", ".join(self._prefixes)
            raise Forbidden(
                f"the key {key!r} is not allowed; the setting shared_memory allows what begins with {allowed}"
            )
        if not (0 <= offset < _LARGEST and 1 <= byte_size < _LARGEST):
            raise BadRequest(f"offset {offset} and byte_size {byte_size} have to be numbers of bytes, and one to hold")
        region = Region(name, key, offset, byte_size)
        with self._lock:
            if name in self._regions:
                raise BadRequest(f"region {name!r} is registered already; unregister it first")
            if len(self._regions) >= MOST_REGIONS:
                raise BadRequest(f"{MOST_REGIONS} regions are registered already; unregister one first")
            self._regions[name] = region

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all; one that a run reads is unmapped after it. Forgetting nothing is no error."""
        with self._lock:
            if name is None:
                self._regions.clear()
            else:
                self._regions.pop(name, None)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """What is registered: name, key, offset and byte_size of each region, or of one.

        Raises:
            NotFound: there is no such region.
        """
        found: Sequence[Region]
        with self._lock:
            found = list(self._regions.values()) if name is None else [self._find(name)]
        return [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in found]

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """Bytes of a region where they lie, without a copy: they change when the client writes there.

        Raises:
            BadRequest: there is no such region, or it is too small, or its memory is gone.
        """
        return self._known(region).view(offset, byte_size).toreadonly()

    def write(self, region: str, offset: int, byte_size: int, data: bytes) -> None:
        """Write to the beginning of a part of a region that is set aside for it.

        Raises:
            BadRequest: there is no such part, it may not be written, it is too small, or its memory is gone.
        """
        held = self._known(region)
        if not held.writable:
            raise BadRequest(f"shared memory {held.key!r} may only be read by the agent's user; outputs need to write")
        if len(data) > byte_size:
            raise BadRequest(f"an output has {len(data)} bytes; {byte_size} are set aside for it in region {region!r}")
        held.view(offset, byte_size)[: len(data)] = data
        held.check()

    def check(self, regions: Iterable[str]) -> None:
        """Say afterwards whether what was read was there all the while; forgotten regions are passed over.

        Raises:
            BadRequest: the memory of one is gone; what was read from it means nothing.
        """
        for name in regions:
            if (region := self._regions.get(name)) is not None:
                region.check()

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"there is no shared memory region {name!r:.300}")
        return region

    def _known(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise BadRequest(f"there is no shared memory region {name!r:.300}; register it first")
        return region


def _open(key: str) -> tuple[int, bool]:
    """A descriptor of an object, and whether it may be written.

    Raises:
        OSError: it cannot be opened, or is no plain memory.
    """
    try:
        descriptor, writable = _posixshmem.shm_open(key, os.O_RDWR, mode=0), True
    except PermissionError:
        descriptor, writable = _posixshmem.shm_open(key, os.O_RDONLY, mode=0), False
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no memory, but a folder, a pipe or a device")
    return descriptor, writable
