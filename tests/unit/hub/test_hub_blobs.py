"""Blobs: whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from cloud_hub.blobs import Blobs
from cloud_hub.errors import BadRequest, NotFound, StorageFull, TooLarge


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_blob_comes_back_as_it_was(tmp_path: Path) -> None:
    blobs, data = Blobs(tmp_path), os.urandom(100_000)
    assert not blobs.has(sha(data))
    assert blobs.put(sha(data), [data[:10], data[10:]]) == len(data)
    assert blobs.has(sha(data)) and blobs.size(sha(data)) == len(data)
    assert blobs.path(sha(data)).read_bytes() == data
    assert blobs.put(sha(data), [data]) == len(data), "again is a success"
    assert files(tmp_path) == [sha(data)]


def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert blobs.put(sha(b""), []) == 0
    assert blobs.has(sha(b""))


def test_other_content_than_announced_is_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with pytest.raises(BadRequest, match="announced was"):
        blobs.put(sha(b"right"), [b"wrong"])
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["", "..", "../" * 21 + "x", "A" * 64, "0" * 63, "0" * 64 + "\n", "g" * 64])
def test_a_name_that_is_no_hash_never_reaches_the_disk(tmp_path: Path, name: str) -> None:
    blobs = Blobs(tmp_path / "blobs")
    for call in (blobs.has, blobs.path, blobs.size, blobs.writer):
        with pytest.raises(BadRequest):
            call(name)
    assert files(tmp_path) == []


def test_too_large_is_refused_while_it_comes(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, max_bytes=10)
    seen = []

    def endless() -> object:
        while True:
            seen.append(1)
            yield b"12345"

    with pytest.raises(TooLarge):
        blobs.put("0" * 64, endless())  # type: ignore[arg-type]  # a generator of bytes
    assert len(seen) == 3
    assert files(tmp_path) == []


def test_what_a_killed_hub_left_half_written_is_removed(tmp_path: Path) -> None:
    Blobs(tmp_path)
    (tmp_path / "incoming" / "half").write_bytes(b"half")
    Blobs(tmp_path)
    assert files(tmp_path) == []


def test_a_missing_blob_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no blob"):
        Blobs(tmp_path).path("0" * 64)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, data = Blobs(tmp_path), b"x" * 1000

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cloud_hub.blobs.os.fsync", full)
        with pytest.raises(StorageFull, match="No space left") as caught:
            blobs.put(sha(data), [data])
    assert "free space" in caught.value.hint
    assert files(tmp_path) == []
    assert blobs.put(sha(data), [data]) == 1000, "with space again it is taken"
