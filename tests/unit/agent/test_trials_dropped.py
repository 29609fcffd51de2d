"""A trial that the hub takes back is begun anew when it is wanted again: it has ended no life of the agent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.observing.store import Store
from edge_agent.trials import Around, TrialRules, Trials, trials
from edge_agent.trials.rules import Doing
from edge_agent.trials.under_way import UnderWay
from edgeloop.protocol import TrialReport, TrialRequest
from edgeloop.protocol.trials import DONE, MEASURING, REFUSED

REQUEST = TrialRequest("one", f"sha256:{1:064x}", "digits", 1000)


def around(data: Path) -> Around:
    settings: Any = SimpleNamespace(data=data)
    return Around(
        settings=lambda: settings,
        rules=TrialRules(),
        doing=lambda: Doing("idle", "", 0.0),
        answered=lambda: 0,
        hub=lambda: "",
        report=lambda: None,
    )


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 20.0
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


def test_a_trial_that_was_dropped_while_it_was_measured_is_measured_when_it_is_wanted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = threading.Event()

    def measure(trial: UnderWay, *_: Any) -> tuple[tuple[()], dict[str, str]]:
        trial.tell(MEASURING, "cpu-fp32")
        while not enough.is_set():
            trial.go_on(0.01)
        return (), {}

    monkeypatch.setattr(trials, "wait_for_rest", lambda trial: None)
    monkeypatch.setattr(trials, "fetch", lambda trial: (None, None))
    monkeypatch.setattr(trials, "measure", measure)
    store = Store(tmp_path / "agent.db")
    made = Trials(store, around(tmp_path))

    def report() -> TrialReport:
        found = made.report()
        assert found is not None
        return found

    made.follow(REQUEST)
    wait_for(lambda: report().state == MEASURING)
    made.follow(None)
    wait_for(lambda: made._thread is None)
    enough.set()
    made.follow(REQUEST)
    wait_for(lambda: report().state in (DONE, REFUSED))
    assert report().state == DONE, report().reason
    made.stop()

    killed = Trials(store, around(tmp_path))  # as a life that was killed in the middle has left it
    killed._told.say("two", MEASURING, "cpu-fp32")
    after = Trials(store, around(tmp_path))
    after.follow(TrialRequest("two", REQUEST.digest, "digits", 1000))
    wait_for(lambda: after.report() is not None and after._thread is None)
    found = after.report()
    assert found is not None and found.state == REFUSED and "ended while it was measuring" in found.reason
    store.close(clean=True)
