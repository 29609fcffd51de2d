"""A source is hashed for later builds: where there are none, or it is refused anyway, that time is not spent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeloop import package
from model_export import graphs
from model_export.building import converting
from model_export.building.converting import opened
from model_export.caching.cache import Cache
from model_export.caching.content_keys import OWN_CODE, tools
from model_export.data import Table, sha256_of
from model_export.sources import Source, open_source, runs_code
from model_export.sources.model import LARGEST_BYTES
from model_export.variants import made as made_variants
from tests.unit.export.models import rows, two_layers


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed, in order."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(converting, "sha256_of", noted)
    return names


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An ONNX file with its weights beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(two_layers(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def made() -> Source:
    tools = {"zeta": "1", "alpha": "2"}
    return Source("onnx", "model", "model.onnx", two_layers(), tools=tools, parity={"rows": 1, "outputs": tools})


def test_with_a_cache_each_file_is_hashed_once_a_build(source: Path, tmp_path: Path, hashed: list[str]) -> None:
    cache = Cache(tmp_path / "cache")
    opened(source, cache, {}, made)
    assert hashed == ["model.onnx", "model.data"]

    def again() -> Source:
        raise AssertionError("it was kept")

    found = opened(source, cache, {}, again)
    assert found.model == made().model
    assert json.dumps([found.tools, found.parity]) == json.dumps([made().tools, made().parity]), "bytes of a manifest"


def test_a_folder_that_was_copied_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        onnx.save(two_layers(), tmp_path / name / "model.onnx")
        (tmp_path / name / "config.json").write_text('{"id2label": {"0": "a", "1": "b", "2": "c"}}')
        monkeypatch.chdir(tmp_path / name)
        data = Table({"x": rows(40)}, np.zeros(40, np.int64), "data.npz", "0" * 64)
        assert opened(Path(), cache, {}, lambda data=data: open_source(Path(), data)).name == name


def test_a_library_from_a_repository_counts_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_library-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = set()
    for commit in ("one", "two"):
        (tmp_path / "some_library-1.0.dist-info" / "direct_url.json").write_text(commit)
        seen.add(tools.__wrapped__()["libraries"])
    assert len(seen) == 2


def test_the_code_of_every_step_is_a_part_of_every_key() -> None:
    covered = {path.resolve() for folder in OWN_CODE for path in folder.rglob("*.py")}
    for module in (converting, graphs, made_variants, package):
        assert Path(str(module.__file__)).resolve() in covered, module.__name__


def test_every_pickle_is_a_program() -> None:
    for name in ("a.joblib", "a.pkl", "a.pt", "a.pth", "a.ckpt", "package.module:make"):
        assert runs_code(name), name
    for name in ("a.onnx", "a.ubj", "C:/models/a.onnx"):
        assert not runs_code(name), name


def test_without_a_cache_nothing_is_hashed(source: Path, hashed: list[str]) -> None:
    opened(source, Cache(None), {}, made)
    assert not hashed


@pytest.mark.parametrize("name", ["model.onnx", "model.data"])
def test_what_is_too_large_is_not_read(source: Path, tmp_path: Path, hashed: list[str], name: str) -> None:
    with (source.parent / name).open("r+b") as file:
        file.truncate(LARGEST_BYTES + 1)  # a hole: it takes no place
    opened(source, Cache(tmp_path / "cache"), {}, made)
    assert name not in hashed
