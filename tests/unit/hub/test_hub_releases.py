"""Publishing: only missing files, whole or not at all, the same again is the same."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from cloud_hub.blobs import Blobs
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.releases import Releases
from edgeloop.package import Index, Package
from tests.doubles.new_records import new_records
from tests.unit.hub.api_kit import ApiHub


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_package_becomes_a_release(api: ApiHub, package: Package) -> None:
    index = package.index.to_bytes()
    answer = api.post("releases/missing", index)
    assert answer["digest"] == package.index.digest
    assert sorted(answer["missing"]) == sorted({entry.sha256 for entry in package.index.entries})
    assert api.publish(package) == package.index.digest
    assert api.post("releases/missing", index)["missing"] == []
    (listed,) = api.get("releases")
    assert (listed["digest"], listed["name"], listed["source"]) == (package.index.digest, package.name, "published")
    assert listed["size"] == sum(entry.size for entry in package.index.entries)
    assert api.get(f"releases/{package.index.digest}") == listed
    raw = api.http.get(f"/api/v1/releases/{package.index.digest}/index").content
    assert raw == index and f"sha256:{sha(raw)}" == package.index.digest


def test_the_same_index_again_is_the_same_release(api: ApiHub, package: Package) -> None:
    first = api.publish(package)
    api.clock.now += 100
    assert api.post("releases", package.index.to_bytes(), 201)["digest"] == first
    assert len(api.get("releases")) == 1


def test_a_release_is_a_package_folder_of_links_to_blobs(api: ApiHub, package: Package) -> None:
    digest = api.publish(package)
    opened = api.hub.releases.open(digest)
    assert opened.name == package.name
    entry = package.index.entries[0]
    assert (opened.root / entry.path).stat().st_ino == api.hub.blobs.path(entry.sha256).stat().st_ino
    assert api.hub.releases.schema(digest) == package.profile().schema  # type: ignore[union-attr]
    assert api.hub.releases.schema("sha256:" + "0" * 64) is None


def test_without_all_files_nothing_is_published(api: ApiHub, package: Package) -> None:
    left_out = package.index.entries[-1].path
    api.send_files(package, leave_out=left_out)
    answer = api.post("releases", package.index.to_bytes(), 409)
    assert left_out in answer["error"] and "missing" in answer["hint"]
    assert api.get("releases") == []
    assert not [path for path in (api.hub.settings.data / "releases").rglob("*") if path.is_file()]


def test_a_release_that_is_not_there(api: ApiHub) -> None:
    for path in ("", "/index", "/lineage"):
        api.get(f"releases/sha256:{'0' * 64}{path}", 404)


def test_a_hub_that_was_killed_between_folder_and_record_publishes_again(tmp_path: Path, package: Package) -> None:
    db = new_records(tmp_path)
    blobs = Blobs(tmp_path / "blobs")
    for entry in package.index.entries:
        blobs.put_file(package.root / entry.path, entry.sha256)
    releases = Releases(db, blobs, tmp_path / "releases")
    place = tmp_path / "releases" / package.index.digest.removeprefix("sha256:")
    place.mkdir()
    (place / "half").write_text("half")
    assert releases.publish(package.index.to_bytes()).digest == package.index.digest
    assert not (place / "half").exists()


def test_a_data_folder_without_its_release_folders_lays_them_out_again(tmp_path: Path, package: Package) -> None:
    db = new_records(tmp_path)
    blobs = Blobs(tmp_path / "blobs")
    digest = Releases(db, blobs, tmp_path / "releases").create(package.root).digest
    shutil.rmtree(tmp_path / "releases")
    assert Releases(db, blobs, tmp_path / "releases").open(digest).name == package.name


def test_the_hubs_own_packages(tmp_path: Path, package: Package) -> None:
    db = new_records(tmp_path)
    releases = Releases(db, Blobs(tmp_path / "blobs"), tmp_path / "releases")
    release = releases.create(package.root)
    assert (release.source, release.digest) == ("retrained", package.index.digest)
    assert releases.create(package.root) == release
    assert [item.digest for item in releases.lineage(release.digest)] == [release.digest]
    assert release.ref.index_size == len(package.index.to_bytes())


def test_a_wrong_size_in_the_index_is_refused(api: ApiHub, package: Package) -> None:
    api.send_files(package)
    first, *rest = package.index.entries
    wrong = Index((type(first)(first.path, first.sha256, first.size + 1), *rest))
    assert first.path in api.post("releases", wrong.to_bytes(), 422)["error"]


def test_errors_of_the_store_are_the_hubs(tmp_path: Path, package: Package) -> None:
    db = new_records(tmp_path)
    releases = Releases(db, Blobs(tmp_path / "blobs"), tmp_path / "releases")
    with pytest.raises(Conflict):
        releases.publish(package.index.to_bytes())
    with pytest.raises(BadRequest):
        releases.publish(b"{}")
    with pytest.raises(NotFound):
        releases.open("sha256:" + "0" * 64)
