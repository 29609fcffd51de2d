"""A source is hashed for later builds: where there are none, or it is refused anyway, that time is not spent."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from model_export.building import converting
from model_export.building.converting import opened
from model_export.caching.cache import Cache
from model_export.data import sha256_of
from model_export.sources import Source
from model_export.sources.model import LARGEST_BYTES
from tests.unit.export.models import two_layers


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
    return Source("onnx", "model", "model.onnx", two_layers())


def test_with_a_cache_each_file_is_hashed_once_a_build(source: Path, tmp_path: Path, hashed: list[str]) -> None:
    cache = Cache(tmp_path / "cache")
    opened(source, cache, {}, made)
    assert hashed == ["model.onnx", "model.data"]

    def again() -> Source:
        raise AssertionError("it was kept")

    assert opened(source, cache, {}, again).model == made().model


def test_without_a_cache_nothing_is_hashed(source: Path, hashed: list[str]) -> None:
    opened(source, Cache(None), {}, made)
    assert not hashed


@pytest.mark.parametrize("name", ["model.onnx", "model.data"])
def test_what_is_too_large_is_not_read(source: Path, tmp_path: Path, hashed: list[str], name: str) -> None:
    with (source.parent / name).open("r+b") as file:
        file.truncate(LARGEST_BYTES + 1)  # a hole: it takes no place
    opened(source, Cache(tmp_path / "cache"), {}, made)
    assert name not in hashed
