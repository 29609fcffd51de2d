"""A build that was made before gives the same package in a moment; the cache changes no digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export import BuildReport, build
from model_export.caching.cache import Cache
from tests.unit.export.models import rows, two_layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "data.npz", x=rows(120), label=np.arange(120) % 3)
    return folder


@pytest.fixture(scope="module")
def cache(folder: Path) -> Cache:
    return Cache(folder / "cache")


def made(folder: Path, name: str, cache: Cache | None, **more: Any) -> BuildReport:
    settings: dict[str, Any] = {"name": "m", "max_loss": 1.0, "reproducible": True} | more
    return build(two_layers(), folder / name, folder / "data.npz", cache=cache, **settings)


@pytest.fixture(scope="module")
def first(folder: Path, cache: Cache) -> BuildReport:
    return made(folder, "first", cache)


def test_a_cache_changes_no_digest(folder: Path, cache: Cache, first: BuildReport) -> None:
    without = made(folder, "without", None)
    again = made(folder, "again", cache)
    assert (first.cached, without.cached, again.cached) == (False, False, True)
    assert first.digest == without.digest == again.digest
    assert again.as_dict() == {**first.as_dict(), "path": str(again.path), "cached": True}
    assert again.metrics == first.metrics
    assert (folder / "again.provenance.json").exists() and (folder / "again.sbom.json").exists()


def test_another_option_is_another_package(folder: Path, cache: Cache, first: BuildReport) -> None:
    other = made(folder, "other", cache, labels=("a", "b", "c"))
    assert not other.cached and other.digest != first.digest


def test_each_step_that_was_done_is_taken_up_where_the_last_ones_are_missing(
    folder: Path, cache: Cache, first: BuildReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (folder / "cache" / "v1" / "package").iterdir():
        path.unlink()

    def never(*_: object) -> Any:
        raise AssertionError("it was made before")

    monkeypatch.setattr("model_export.prepare.canonical", never)
    monkeypatch.setattr("model_export.variants.maker.to_int8", never)
    resumed = made(folder, "resumed", cache)
    assert not resumed.cached and resumed.digest == first.digest


def test_a_damaged_entry_costs_time_and_nothing_else(folder: Path, cache: Cache, first: BuildReport) -> None:
    made(folder, "kept", cache)
    for path in (folder / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    again = made(folder, "damaged", cache)
    assert not again.cached and again.digest == first.digest


def test_a_notebook_shows_a_table_and_runs_nothing_of_a_name(first: BuildReport) -> None:
    shown = first._repr_html_()
    assert "cpu-fp32" in shown and first.digest in shown
    hostile = BuildReport(
        Path("p"), "<script>alert(1)</script>", "1", "d", 1, {}, head=False, labels=(), notes=("<b>",)
    )
    assert "<script>" not in hostile._repr_html_() and "<b>" not in hostile._repr_html_()
