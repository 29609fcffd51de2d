"""Resident memory of this process."""

from __future__ import annotations

import os
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
