"""Packages are written once for all tests of serving."""

from __future__ import annotations

import pytest

from edgeloop.package import Package
from tests.doubles.packages import make_package


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("packages") / "first", version="1", seed=0)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("packages") / "second", version="2", seed=1)
