"""Fixtures of the hub's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.package import Package
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path / "data")
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    """One hub for the tests of a module that only see it refuse."""
    hub = ApiHub(tmp_path_factory.mktemp("shared") / "data")
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")
