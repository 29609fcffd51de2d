"""Room on the disk: what the data folder takes, what the quota and the reserve leave, and why it is not enough."""

from __future__ import annotations

import os
from pathlib import Path


def used_bytes(data: Path) -> int:
    """Bytes that a folder takes on the disk, each file once however many names it has."""
    seen: set[tuple[int, int]] = set()
    total = 0
    folders = [str(data)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue  # removed by somebody else in the meantime
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                # Blocks of 512 bytes, POSIX; a file without any (on some file systems small ones) counts its length.
                total += status.st_blocks * 512 or status.st_size
    return total


def shortage(data: Path, needed: int, *, reserve: int, quota: int) -> str:
    """Why so many bytes more do not fit, or "".

    Args:
        data: the agent's data folder.
        needed: bytes that are to come.
        reserve: bytes of the disk that stay free.
        quota: bytes that the data folder may take in all; 0: any.
    """
    if quota and (used := used_bytes(data)) + needed > quota:
        return (
            f"the disk quota is full: {needed:,} bytes are needed, {data} takes {used:,} and may take {quota:,} "
            "(disk_quota_bytes); raise it, the update goes on by itself"
        )
    disk = os.statvfs(data)
    free = disk.f_bavail * disk.f_frsize
    if free - needed < reserve:
        return (
            f"the disk is full: {needed:,} bytes are needed, {free:,} are free and {reserve:,} have to stay free "
            "(disk_reserve_bytes); make room, the update goes on by itself"
        )
    return ""
