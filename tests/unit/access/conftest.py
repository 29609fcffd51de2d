"""Fixtures of the tests of access."""

from __future__ import annotations

import pytest

from edgeloop.package import Package
from tests.doubles.packages import make_package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")
