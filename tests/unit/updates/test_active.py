"""What serves, and whether anybody has looked that it runs as its owner wants it to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.ports import LoadedRelease
from edge_agent.updates import active
from edge_agent.updates.active import Active
from edge_agent.updates.errors import Refused
from edge_agent.updates.rules import FETCHING, PROBATION, STAGED, TESTING, VERIFYING, Offer
from edge_agent.updates.store import Installed, UpdateStore
from edge_agent.updates.testing import TestingRules

OLD, NEW = f"sha256:{1:064x}", f"sha256:{2:064x}"


def loaded(release: str) -> LoadedRelease:
    session = SimpleNamespace(variant="cpu-fp32", provider="CPUExecutionProvider")
    return LoadedRelease(release, None, session, None)  # type: ignore[arg-type]  # nothing runs it


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Active:
    """The old release is committed; no provider that the owner requires is there."""

    def refuse(*_: Any, **__: Any) -> None:
        raise Refused("the policy requires NoSuchProvider")

    monkeypatch.setattr(active, "load_installed", lambda folder, index, installed, *_, **__: loaded(installed.release))
    monkeypatch.setattr(active, "measure_again", refuse)
    store = UpdateStore(tmp_path / "updates.db")
    store.begin(Offer(OLD, "digits", "1.0", None, ""), FETCHING, "", 0.0)
    for state in (VERIFYING, STAGED, TESTING, PROBATION):
        store.move(state, "", 0.0)
    store.commit(Installed(OLD, "cpu-fp32", "CPUExecutionProvider"), "", 0.0)
    files = SimpleNamespace(index=lambda release: release, folder=lambda release: tmp_path)
    plane = SimpleNamespace(switch=lambda loaded: None)
    return Active(
        store,
        files,  # type: ignore[arg-type]
        plane,
        tests=TestingRules,
        tell=lambda at: None,
        progress=lambda text: None,
        clock=lambda: 0.0,
    )


def test_a_release_that_is_gone_back_to_is_looked_at_again_so_that_its_trouble_is_not_forgotten(
    serving: Active,
) -> None:
    assert serving.serve_committed() and serving.unmeasured
    serving.measure_again()
    assert "NoSuchProvider" in serving.trouble and not serving.unmeasured
    serving.serve_tested(loaded(NEW))
    assert serving.trouble == "" and not serving.unmeasured
    serving.switch_back()
    assert serving.loaded is not None and serving.loaded.digest == OLD and serving.unmeasured
    serving.measure_again()
    assert "NoSuchProvider" in serving.trouble
