"""Memory that its owner takes away while it is mapped here: an answer with an error instead of the end of the process.

Whoever owns a shared-memory object may cut it short at any moment. The pages are then gone, and touching one raises
SIGBUS, which ends a process: nothing that is looked at beforehand can rule that out, since a run takes milliseconds
and reads all the while. So, as Wayland's compositors do with their clients' buffers, the signal is caught, empty
memory is put where the pages were, and the mapping is marked as lost; whoever used it looks at the mark afterwards.
A fault at any other address ends the process as it always did.

Linux only: macOS sets the size of such an object once, and then never lets it change.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import sys
import threading
import weakref

import numpy as np

_SA_SIGINFO, _SA_NODEFER = 0x4, 0x40000000
_PROTECTION = mmap.PROT_READ | mmap.PROT_WRITE
_IN_ITS_PLACE = 0x10 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # MAP_FIXED is 0x10 wherever wheels are built for
_MASK_LONGS = 1024 // (8 * ctypes.sizeof(ctypes.c_ulong))
#: Where siginfo_t has the address of the fault: after three ints, aligned as a pointer is.
_FAULT_ADDRESS = 2 * ctypes.sizeof(ctypes.c_void_p) if ctypes.sizeof(ctypes.c_void_p) == 8 else 12


class _SigAction(ctypes.Structure):
    """``struct sigaction`` of Linux' C libraries."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * _MASK_LONGS),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Watch:
    """One mapping that is watched, for as long as it lives.

    Attributes:
        lost: whether pages of it were gone when they were touched. Its contents mean nothing then.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        """Watch a mapping. The first call in a process takes over SIGBUS."""
        self.lost = False
        self._start = np.frombuffer(memory, np.uint8).ctypes.data
        self._end = self._start + len(memory)
        if sys.platform == "linux":
            _guard().watched(self, memory)

    def holds(self, address: int) -> bool:
        """Whether the address is one of the mapping's."""
        return self._start <= address < self._end

    def replace(self, libc: ctypes.CDLL) -> bool:
        """Put empty memory in the mapping's place; returns whether that went well."""
        self.lost = True
        size = self._end - self._start
        found = libc.mmap(self._start, size, _PROTECTION, _IN_ITS_PLACE, -1, 0)
        return bool(found == self._start)


class _Guard:
    """Who answers SIGBUS in this process."""

    def __init__(self) -> None:
        # Replaced as a whole, since the handler may look at it in the middle of a change.
        self._watches: tuple[Watch, ...] = ()
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._before = _SigAction()
        # ctypes' callback takes the interpreter's lock first, so that it also works in ONNX Runtime's own threads. A
        # fault comes from reading a tensor, never from inside an allocator: Python may run here.
        self._handler = _Handler(self._fault)
        ours = _SigAction(
            ctypes.cast(self._handler, ctypes.c_void_p), (ctypes.c_ulong * _MASK_LONGS)(), _SA_SIGINFO | _SA_NODEFER
        )
        if self._libc.sigaction(signal.SIGBUS, ctypes.byref(ours), ctypes.byref(self._before)) != 0:
            raise OSError(ctypes.get_errno(), "SIGBUS cannot be taken over")

    def watched(self, watch: Watch, memory: mmap.mmap) -> None:
        """Answer for a mapping until it is unmapped, which is when nobody holds it any more."""
        with self._lock:
            self._watches = (*self._watches, watch)
        weakref.finalize(memory, self._unwatched, watch)

    def _unwatched(self, watch: Watch) -> None:
        with self._lock:
            self._watches = tuple(other for other in self._watches if other is not watch)

    def _fault(self, number: int, info: int, context: int) -> None:
        address = ctypes.c_void_p.from_address(info + _FAULT_ADDRESS).value or 0
        for watch in self._watches:
            if watch.holds(address) and watch.replace(self._libc):
                return
        # Not ours: what was there before gets it, as soon as this returns and the same instruction faults again.
        self._libc.sigaction(number, ctypes.byref(self._before), None)


_guards: list[_Guard] = []
_making = threading.Lock()


def _guard() -> _Guard:
    with _making:
        if not _guards:
            _guards.append(_Guard())
        return _guards[0]
