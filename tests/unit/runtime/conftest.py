"""A package for the tests of providers, and the provider that misbehaves."""

from __future__ import annotations

import pytest

from edgeloop.package import Package
from tests.doubles.packages import make_package
from tests.doubles.provider_fixture import doubled

__all__ = ["doubled", "tiny"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("providers") / "tiny")
