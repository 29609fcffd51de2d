"""Shared memory: what is registered is read where it lies; what is not there, or no longer, is an error, no crash."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from multiprocessing import shared_memory as python
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_agent.serving.errors import BadRequest, Forbidden, NotFound, ServingError
from edge_agent.serving.shared_memory import MOST_REGIONS, SharedMemory

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux'")
PAGE = 4096


@pytest.fixture
def owned() -> Iterator[python.SharedMemory]:
    """A client's object of four pages, filled with 0, 1, 2, …"""
    memory = python.SharedMemory(f"edgeloop-{uuid.uuid4().hex[:12]}", create=True, size=4 * PAGE)
    memory.buf[:] = bytes(range(256)) * (4 * PAGE // 256)
    yield memory
    memory.close()
    memory.unlink()


@pytest.fixture
def shared() -> SharedMemory:
    return SharedMemory(["/edgeloop-"])


def test_bytes_are_read_where_they_lie(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("frame", "/" + owned.name, 0, 4 * PAGE)
    view = shared.read("frame", 3, 5)
    assert bytes(view) == bytes([3, 4, 5, 6, 7])
    owned.buf[3] = 99
    assert view[0] == 99, "it is the same memory"
    assert view.readonly


def test_a_region_may_begin_anywhere_in_its_object(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("part", owned.name, PAGE + 7, 100)
    assert bytes(shared.read("part", 1, 2)) == bytes([8, 9])
    shared.write("part", 98, 2, b"ab")
    assert bytes(owned.buf[PAGE + 105 : PAGE + 107]) == b"ab"
    assert shared.status("part") == [{"name": "part", "key": "/" + owned.name, "offset": PAGE + 7, "byte_size": 100}]


def test_names_come_and_go(owned: python.SharedMemory, shared: SharedMemory) -> None:
    for name in ("a", "b"):
        shared.register(name, owned.name, 0, 8)
    assert [found["name"] for found in shared.status(None)] == ["a", "b"]
    with pytest.raises(BadRequest, match="registered already; unregister it first"):
        shared.register("a", owned.name, 0, 8)
    shared.unregister("a")
    shared.unregister("a")
    with pytest.raises(NotFound):
        shared.status("a")
    with pytest.raises(BadRequest, match="no shared memory region 'a'"):
        shared.read("a", 0, 1)
    shared.unregister(None)
    assert shared.status(None) == []


def test_what_a_run_reads_outlives_its_region(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("frame", owned.name, 0, PAGE)
    array = np.frombuffer(shared.read("frame", 0, PAGE), np.uint8)
    shared.unregister("frame")
    gc.collect()
    assert array[:3].tolist() == [0, 1, 2]


@linux
def test_nothing_is_kept_of_what_is_unregistered(owned: python.SharedMemory, shared: SharedMemory) -> None:
    def held() -> tuple[int, int]:
        return psutil.Process().num_fds(), Path("/proc/self/maps").read_text().count(owned.name)

    shared.register("first", owned.name, 0, PAGE)
    shared.unregister("first")
    before = held()
    for _ in range(200):
        shared.register("frame", owned.name, 0, PAGE)
        shared.unregister("frame")
        with pytest.raises(BadRequest):
            shared.register("frame", owned.name, 0, 1 << 40)
    assert held() == before


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 4 * PAGE + 1), (4 * PAGE, 1), (PAGE, 1 << 40), (1 << 61, 1 << 61), (-1, 8), (0, 0), (0, -8)],
)
def test_more_than_the_object_has(owned: python.SharedMemory, shared: SharedMemory, offset: int, size: int) -> None:
    with pytest.raises(BadRequest, match="bytes"):
        shared.register("frame", owned.name, offset, size)
    assert shared.status(None) == []


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (101, 0), (-1, 4), (0, -4), (1 << 62, 1 << 62)])
def test_more_than_the_region_has(owned: python.SharedMemory, shared: SharedMemory, offset: int, size: int) -> None:
    shared.register("frame", owned.name, 0, 100)
    with pytest.raises(BadRequest, match="has 100 bytes"):
        shared.read("frame", offset, size)
    with pytest.raises(BadRequest):
        shared.write("frame", offset, size, b"ab")
    assert bytes(owned.buf[100:102]) == bytes([100, 101]), "nothing beyond the region was touched"


def test_an_output_that_does_not_fit(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("answer", owned.name, 0, 100)
    with pytest.raises(BadRequest, match="has 5 bytes; 4 are set aside"):
        shared.write("answer", 0, 4, b"abcde")
    assert owned.buf[0] == 0


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/.",
        "/..",
        "/../etc/passwd",
        "/edgeloop-/../x",
        "edgeloop-/x",
        "/edgeloop-\0",
        "//edgeloop-x",
        "/edgeloop-\ud800",
        "/edgeloop-absent",
        "/edgeloop-" + "a" * 300,
    ],
)
def test_keys_that_are_none(shared: SharedMemory, key: str) -> None:
    with pytest.raises(BadRequest, match=r"key|cannot be opened"):
        shared.register("frame", key, 0, 1)


def test_only_what_is_allowed_is_opened(owned: python.SharedMemory) -> None:
    with pytest.raises(Forbidden, match="shared_memory allows what begins with /camera-"):
        SharedMemory(["/camera-"]).register("frame", owned.name, 0, 1)
    SharedMemory(["/"]).register("frame", owned.name, 0, 1)


@linux
def test_links_pipes_and_folders_are_no_memory(tmp_path: Path, shared: SharedMemory) -> None:
    target = tmp_path / "secret"
    target.write_bytes(b"x" * PAGE)
    name = f"edgeloop-{uuid.uuid4().hex[:12]}"
    path = Path("/dev/shm") / name
    for make, remove in (
        (lambda: path.symlink_to(target), path.unlink),
        (lambda: os.mkfifo(path), path.unlink),
        (path.mkdir, path.rmdir),
    ):
        make()
        try:
            with pytest.raises(BadRequest, match="cannot be opened"):
                shared.register("frame", name, 0, 8)
        finally:
            remove()


def test_the_number_of_regions_is_bounded(owned: python.SharedMemory, shared: SharedMemory) -> None:
    for number in range(MOST_REGIONS):
        shared.register(str(number), owned.name, 0, 8)
    with pytest.raises(BadRequest, match="regions are registered already"):
        shared.register("one more", owned.name, 0, 8)


@linux
def test_an_object_that_is_cut_short_is_an_error(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("frame", owned.name, PAGE, PAGE)
    os.truncate(f"/dev/shm/{owned.name}", PAGE)
    with pytest.raises(BadRequest, match=f"has {PAGE} bytes"):
        shared.read("frame", 0, 8)
    os.truncate(f"/dev/shm/{owned.name}", 4 * PAGE)
    assert bytes(shared.read("frame", 0, 8)) == bytes(8)


def test_an_object_that_is_removed_stays_until_it_is_unregistered(shared: SharedMemory) -> None:
    memory = python.SharedMemory(f"edgeloop-{uuid.uuid4().hex[:12]}", create=True, size=PAGE)
    shared.register("frame", memory.name, 0, 8)
    memory.buf[0] = 7
    memory.close()
    memory.unlink()
    assert shared.read("frame", 0, 1)[0] == 7
    with pytest.raises(BadRequest, match="cannot be opened"):
        shared.register("again", memory.name, 0, 8)


@linux
def test_memory_that_is_taken_away_during_a_read_ends_nothing(owned: python.SharedMemory, shared: SharedMemory) -> None:
    shared.register("frame", owned.name, 0, 4 * PAGE)
    view = shared.read("frame", 0, 4 * PAGE)  # looked at while it was whole …
    os.truncate(f"/dev/shm/{owned.name}", 0)
    assert sum(np.frombuffer(view, np.uint8)) == 0  # … and read when its pages were gone
    os.truncate(f"/dev/shm/{owned.name}", 4 * PAGE)
    for look in (lambda: shared.check(["frame"]), lambda: shared.read("frame", 0, 1)):
        with pytest.raises(BadRequest, match="taken away while it was used"):
            look()
    shared.unregister("frame")
    shared.check(["frame"])
    shared.register("frame", owned.name, 0, 4 * PAGE)
    assert shared.read("frame", 0, 1)[0] == 0


@linux
def test_an_owner_who_cuts_it_again_and_again(owned: python.SharedMemory, shared: SharedMemory) -> None:
    """Reads and writes race with the owner: each ends well or with an error."""
    path, done = f"/dev/shm/{owned.name}", threading.Event()

    def cut() -> None:
        while not done.is_set():
            os.truncate(path, 0)
            os.truncate(path, 4 * PAGE)

    owner = threading.Thread(target=cut)
    owner.start()
    refused = 0
    try:
        for _ in range(2000):
            try:
                shared.register("frame", owned.name, 0, 4 * PAGE)
                np.frombuffer(shared.read("frame", 0, 4 * PAGE), np.uint8).sum()
                shared.write("frame", 0, 4 * PAGE, bytes(4 * PAGE))
                shared.check(["frame"])
            except ServingError:
                refused += 1
            shared.unregister("frame")
    finally:
        done.set()
        owner.join()
    assert refused, "the race was there"


@linux
def test_other_bus_errors_end_the_process_as_they_always_did(owned: python.SharedMemory) -> None:
    """Only memory that was registered is answered for: nothing else is papered over."""
    script = f"""
import mmap, os, tempfile
from edge_agent.serving.shared_memory import SharedMemory
SharedMemory(["/"]).register("frame", {owned.name!r}, 0, 8)
file = tempfile.TemporaryFile()
os.ftruncate(file.fileno(), 4096)
other = mmap.mmap(file.fileno(), 4096)
os.ftruncate(file.fileno(), 0)
print(other[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == -7
    assert done.stdout == b""
