"""The package of digits, trained and exported once for each process that tests."""

from __future__ import annotations

import pytest

from edgeloop.package import Package
from tests.doubles.digits import build


@pytest.fixture(scope="session", name="package")
def digits_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """It is opened, and never written."""
    root = tmp_path_factory.mktemp("packages") / "digits"
    build(root)
    return Package.open(root)
