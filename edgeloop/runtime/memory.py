"""Resident memory of this process, and giving back what the C library keeps of it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


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


def trim_memory() -> None:
    """Give freed memory back: glibc keeps it otherwise, and a device that updates for a year would grow."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return  # another C library, which has no such call
