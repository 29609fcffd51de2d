"""The cache of builds: whole or not at all, bounded, shared by processes that may be killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_export.caching.cache import ENVIRONMENT, Cache, default_folder
from model_export.errors import RequestError


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_put_is_found_again_by_step_and_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("convert", key("a"), b"a graph")
    assert Cache(tmp_path / "cache").read("convert", key("a")) == b"a graph"
    assert cache.read("convert", key("b")) is None and cache.read("prepare", key("a")) is None


def test_the_last_one_that_was_put_counts(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("convert", key("a"), b"old")
    cache.write("convert", key("a"), b"new")
    assert cache.read("convert", key("a")) == b"new"
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("damage", [b"", b"a grapH", b"a graph and more"])
def test_a_damaged_entry_is_none_and_goes(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.write("convert", key("a"), b"a graph")
    entries(tmp_path)[0].write_bytes(damage)
    assert cache.read("convert", key("a")) is None
    assert entries(tmp_path) == []


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=30)
    for age, name in ((300, "a"), (200, "b"), (100, "c")):
        cache.write("convert", key(name), name.encode() * 10)
        file = next(path for path in entries(tmp_path) if path.name.startswith(key(name)))
        os.utime(file, (time.time() - age, time.time() - age))
    assert cache.read("convert", key("a")) is not None  # used now
    cache.write("prepare", key("d"), b"d" * 10)
    left = [
        name
        for step, name in (("convert", "a"), ("convert", "b"), ("convert", "c"), ("prepare", "d"))
        if cache.read(step, key(name)) is not None
    ]
    assert left == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 30


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=30)
    cache.write("convert", key("a"), b"a" * 31)
    assert cache.read("convert", key("a")) is None


def test_a_build_that_is_killed_while_it_writes_leaves_nothing_that_is_found(tmp_path: Path) -> None:
    program = (
        "import hashlib, sys\n"
        "from pathlib import Path\n"
        "from model_export.caching.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    data = n.to_bytes(4, 'big') * 500_000\n"
        "    cache.write('convert', hashlib.sha256(str(n % 5).encode()).hexdigest(), data)\n"
        "    print(n, flush=True)\n"
        "    n += 1\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    cache = Cache(tmp_path)
    for n in range(5):
        data = cache.read("convert", key(str(n)))
        assert data is None or (len(data) == 2_000_000 and data == data[:4] * 500_000)
    assert cache.read("convert", key("0")) is not None


def test_the_half_of_a_file_that_a_killed_build_left_is_taken_away_a_day_later(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("convert", key("a"), b"a")
    half = entries(tmp_path)[0].with_name(".half")
    half.write_bytes(b"x")
    cache.write("convert", key("b"), b"b")
    assert half.exists()  # somebody may be writing it
    os.utime(half, (time.time() - 100_000, time.time() - 100_000))
    cache.write("convert", key("c"), b"c")
    assert not half.exists()


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    cache = Cache(None)
    cache.write("convert", key("a"), b"a")
    assert cache.read("convert", key("a")) is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="no folder"):
        Cache(tmp_path / "file")
    cache = Cache(tmp_path / "file" / "below")
    cache.write("convert", key("a"), b"a")
    assert cache.read("convert", key("a")) is None


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Cache(tmp_path / "cache").write("convert", key("a"), b"a")
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("step", "name"), [("../x", key("a")), ("convert", "../../etc"), ("convert", "")])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, step: str, name: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        Cache(tmp_path).read(step, name)


def test_the_default_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edgeloop" / "model-export"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path.home() / ".cache" / "edgeloop" / "model-export"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.setenv(ENVIRONMENT, "")
    assert default_folder() is None
