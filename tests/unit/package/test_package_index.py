"""The index: one way to write it, strict reading, a digest that stays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Index, IndexEntry, PackageError
from edgeloop.package.documents import canonical_json, read_json

A = IndexEntry("a/model.onnx", "0" * 64, 3)
B = IndexEntry("manifest.json", "f" * 64, 0)


def test_canonical_bytes_and_digest_stay() -> None:
    """These bytes are on devices and hubs: they must never change."""
    index = Index.of([B, A])
    assert index.to_bytes() == (
        b'{"files":[{"path":"a/model.onnx","sha256":"' + b"0" * 64 + b'","size":3},'
        b'{"path":"manifest.json","sha256":"' + b"f" * 64 + b'","size":0}],"v":1}'
    )
    assert index.digest == "sha256:4a623dbb6694489a279f43bdc0eef5fb201616ea11489c0a1b3369bd81b10eea"
    assert index.total_bytes == 3


def test_order_does_not_matter() -> None:
    entries = [IndexEntry(f"f{i}", f"{i:064x}", i) for i in range(50)]
    shuffled = random.Random(0).sample(entries, len(entries))
    assert Index.of(shuffled) == Index.of(entries)
    assert Index.parse(Index.of(shuffled).to_bytes()) == Index.of(entries)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(v=2),
        lambda d: d.update(v=True),
        lambda d: d.update(v=1.0),
        lambda d: d.update(more=1),
        lambda d: d.update(files=[]),
        lambda d: d.update(files={}),
        lambda d: d["files"].reverse(),
        lambda d: d["files"].append(d["files"][0]),
        lambda d: d["files"].append(7),
        lambda d: d["files"][0].pop("size"),
        lambda d: d["files"][0].update(mode=0o755),
        lambda d: d["files"][0].update(size=-1),
        lambda d: d["files"][0].update(size=True),
        lambda d: d["files"][0].update(size=1.5),
        lambda d: d["files"][0].update(size=1 << 60),
        lambda d: d["files"][0].update(sha256="0" * 63),
        lambda d: d["files"][0].update(sha256="A" * 64),
        lambda d: d["files"][0].update(path=None),
        lambda d: d["files"][0].update(path="Manifest.JSON"),
        lambda d: d["files"][0].update(path="manifest.json/x"),
    ],
)
def test_strict(change: Any) -> None:
    found = json.loads(Index.of([A, B]).to_bytes())
    change(found)
    with pytest.raises(PackageError):
        Index.parse(canonical_json(found))


@pytest.mark.parametrize("data", [b" %s", b"%s\n", b"\xef\xbb\xbf%s"])
def test_other_spellings_of_the_same_index_are_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"canonical|JSON"):
        Index.parse(data % Index.of([A, B]).to_bytes())


def test_a_long_path_makes_no_long_message() -> None:
    with pytest.raises(PackageError) as caught:
        Index.parse(canonical_json({"files": [{"path": "x" * 100_000, "sha256": 1, "size": 1}], "v": 1}))
    assert len(str(caught.value)) < 300


def test_of_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"")
    index = Index.of_folder(tmp_path)
    assert [(e.path, e.size) for e in index.entries] == [("a", 0), ("b/c", 3)]
    assert index.by_path["b/c"].sha256.startswith("ba7816bf")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(PackageError, match="link is no regular file"):
        Index.of_folder(tmp_path)


def test_json_at_its_limits() -> None:
    assert read_json(b'{"a":' * 32 + b"1" + b"}" * 32, "x")
    with pytest.raises(PackageError, match="deeper"):
        read_json(b'{"a":' * 33 + b"1" + b"}" * 33, "x")
    assert read_json(b"{}" + b" " * 8, "x", max_bytes=10) == {}
    with pytest.raises(PackageError, match="at most 10"):
        read_json(b"{}" + b" " * 9, "x", max_bytes=10)
    assert canonical_json({"b": "é", "a": [1.5]}) == '{"a":[1.5],"b":"é"}'.encode()
