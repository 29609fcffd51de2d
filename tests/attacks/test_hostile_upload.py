"""Attacks on publishing: nothing that is sent can leave its place, fill the memory or the disk, or become a release."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.releases import MAX_INDEX_BYTES
from edgeloop.package import Index, IndexEntry, Package
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path / "data", max_blob_bytes=1 << 20)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    """One hub for the attacks after which nothing is left."""
    hub = ApiHub(tmp_path_factory.mktemp("shared") / "data", max_blob_bytes=1 << 20)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(api: ApiHub, index: bytes, status: int = 422) -> str:
    error = str(api.post("releases", index, status)["error"])
    assert api.get("releases") == []
    assert not any(path.startswith("releases/") for path in everything(api.hub.settings.data))
    return error


PATHS = [
    "../outside",
    "a/../../outside",
    "/etc/passwd",
    "a//b",
    "./a",
    "a/",
    "",
    "a\\b",
    "C:\\a",
    "a\x00b",
    "a\nb",
    "x" * 5000,
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_leaves_the_package(shared: ApiHub, path: str) -> None:
    data = b"content"
    shared.http.put(f"/api/v1/blobs/{sha(data)}", content=data)
    before = everything(shared.hub.settings.data.parent)
    index = {"files": [{"path": path, "sha256": sha(data), "size": len(data)}], "v": 1}
    refused(shared, json.dumps(index, separators=(",", ":"), sort_keys=True).encode())
    after = everything(shared.hub.settings.data.parent)
    assert {name for name in after - before if "hub.db" not in name} == set()


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"files":[],"v":2}',
        b'{"files":[{"path":"a","sha256":"nonsense","size":1}],"v":1}',
        b'{"files":[{"path":"a","sha256":"' + b"0" * 64 + b'","size":-1}],"v":1}',
        b'{"files":[{"path":"a","sha256":"' + b"0" * 64 + b'","size":1e99}],"v":1}',
        b'{"files":' + b'[{"path":"a","sha256":"' + b"0" * 64 + b'","size":1}]' + b',"v":1,"v":1}',
    ],
    ids=range(10),
)
def test_an_index_that_is_none(shared: ApiHub, index: bytes) -> None:
    refused(shared, index)
    shared.post("releases/missing", index, 422)


def test_an_index_that_is_too_large_is_not_read(shared: ApiHub) -> None:
    refused(shared, b" " * (MAX_INDEX_BYTES + 1), 413)

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 65_536

    answer = shared.http.post("/api/v1/releases", content=endless())
    assert answer.status_code == 413


def test_a_blob_that_is_too_large_is_cut_off(shared: ApiHub) -> None:
    data = b"x" * ((1 << 20) + 1)
    before = everything(shared.hub.settings.data)
    shared.put(f"blobs/{sha(data)}", data, 413)
    assert everything(shared.hub.settings.data) == before


def test_a_blob_with_other_content_than_its_name(shared: ApiHub) -> None:
    shared.put(f"blobs/{'0' * 64}", b"content", 422)
    assert shared.http.head(f"/api/v1/blobs/{'0' * 64}").status_code == 404


@pytest.mark.parametrize("name", ["..%2f..%2fhub.db", "%2e%2e", "A" * 64, "0" * 63, "0" * 64 + "%00", "incoming"])
def test_a_blob_by_a_name_that_is_no_hash(shared: ApiHub, name: str) -> None:
    for answer in (shared.http.get(f"/api/v1/blobs/{name}"), shared.http.put(f"/api/v1/blobs/{name}", content=b"x")):
        assert answer.status_code in (404, 405, 422)
        assert b"SQLite" not in answer.content


def test_a_full_disk_while_a_blob_comes(api: ApiHub, monkeypatch: pytest.MonkeyPatch) -> None:
    data, before = b"x" * 1000, everything(api.hub.settings.data)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cloud_hub.blobs.os.fsync", full)
        answer = api.put(f"blobs/{sha(data)}", data, 507)
    assert "No space left" in answer["error"] and "free space" in answer["hint"]
    assert everything(api.hub.settings.data) == before
    api.put(f"blobs/{sha(data)}", data, 201)


def test_a_full_disk_while_a_release_is_laid_out(
    api: ApiHub, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.send_files(package)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cloud_hub.blobs.os.link", full)
        refused(api, package.index.to_bytes(), 507)
    api.post("releases", package.index.to_bytes(), 201)


def changed(package: Package, api: ApiHub, **files: bytes | None) -> bytes:
    """The package's index with files replaced, added (a new name) or removed (None); their blobs are sent."""
    entries = {entry.path: entry for entry in package.index.entries}
    api.send_files(package)
    for path, data in files.items():
        entries.pop(path, None)
        if data is not None:
            entries[path] = IndexEntry(path, sha(data), len(data))
            api.http.put(f"/api/v1/blobs/{sha(data)}", content=data)
    return Index(tuple(sorted(entries.values(), key=lambda entry: entry.path))).to_bytes()


def test_a_package_whose_manifest_is_not_json(shared: ApiHub, package: Package) -> None:
    refused(shared, changed(package, shared, **{"manifest.json": b"\x80\x04pickle"}))


def test_a_package_without_a_manifest(shared: ApiHub, package: Package) -> None:
    refused(shared, changed(package, shared, **{"manifest.json": None}))


def test_a_package_without_one_of_its_files(shared: ApiHub, package: Package) -> None:
    model = next(entry.path for entry in package.index.entries if entry.path.endswith(".onnx"))
    refused(shared, changed(package, shared, **{model: None}))


def test_a_package_with_a_pickle_in_it(shared: ApiHub, package: Package) -> None:
    refused(shared, changed(package, shared, **{"model.pkl": b"\x80\x04."}))


def test_a_package_whose_model_is_noise(shared: ApiHub, package: Package) -> None:
    model = next(entry.path for entry in package.index.entries if entry.path.endswith(".onnx"))
    refused(shared, changed(package, shared, **{model: os.urandom(2000)}))


def test_a_package_whose_model_has_a_custom_operator(shared: ApiHub, package: Package) -> None:
    import onnx

    path = next(entry.path for entry in package.index.entries if entry.path.endswith(".onnx"))
    model: Any = onnx.load(package.root / path, load_external_data=False)
    model.graph.node[0].domain = "evil.ops"
    model.opset_import.append(onnx.helper.make_opsetid("evil.ops", 1))
    assert "evil.ops" in refused(shared, changed(package, shared, **{path: model.SerializeToString()}))
