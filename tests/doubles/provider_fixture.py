"""The fixture of a provider that misbehaves, in this process and in those that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.runtime.ort import ort
from tests.doubles import provider_double

#: Before the real onnxruntime on the path of a process, it brings the provider along.
BROKEN = Path(provider_double.__file__).parent / "broken_provider"


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The double's provider is there; call with what it does."""
    provider_double.install(ort, monkeypatch.setattr)
    monkeypatch.setattr(provider_double, "SEEN", [])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BROKEN), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    return lambda mood: monkeypatch.setenv("DOUBLE", mood)
