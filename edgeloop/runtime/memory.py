"""Resident memory of this process, and giving back what the C library keeps of it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
#: malloc.h of glibc.
_M_ARENA_MAX = -8


def resident_bytes() -> int | None:
    """Bytes of this process that are in memory now, or None where nobody can say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil  # macOS and Windows; a device that runs a package in process need not have it
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def share_arenas(most: int = 2) -> None:
    """Let all threads allocate from a few heaps; call it before threads are made.

    glibc gives threads heaps of their own, up to eight for each processor, and what one has freed another cannot use.
    An agent that had answered 5,000 requests took 2 to 3 MB less with two. ``MALLOC_ARENA_MAX`` in the environment is
    stronger.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        try:
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, most)
        except (OSError, AttributeError):
            return  # another C library, which has no such call


def trim_memory() -> None:
    """Give freed memory back: glibc keeps it otherwise, and a device that updates for a year would grow."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return  # another C library, which has no such call
