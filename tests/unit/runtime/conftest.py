"""A package, and a provider that misbehaves in this process and in the ones that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.runtime.ort import ort
from tests.doubles import provider_double
from tests.doubles.packages import make_package

BROKEN = Path(provider_double.__file__).parent / "broken_provider"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("providers") / "tiny")


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The double's provider is there; call with what it does."""
    provider_double.install(ort, monkeypatch.setattr)
    monkeypatch.setattr(provider_double, "SEEN", [])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BROKEN), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    return lambda mood: monkeypatch.setenv("DOUBLE", mood)
