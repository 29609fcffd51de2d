"""The search of parameters: deterministic, gone on with after an interruption, and true to its best trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.programs import Search
from cloud_hub.training.search import Found, search
from cloud_hub.training.trainer import Cancelled, TrainingError

pytest.importorskip("optuna", reason="pip install 'edgeloop[training]'")

ASKED = Search.model_validate(
    {
        "trials": 6,
        "parameters": {
            "rate": {"low": 1e-4, "high": 1.0, "log": True},
            "layers": {"low": 1, "high": 3, "whole": True},
            "kind": {"choices": ["a", "b"]},
        },
    }
)


class Trials:
    """A program whose result is best for a small rate and kind `b`."""

    def __init__(self, fails: Any = lambda number: False, stops_at: int | None = None) -> None:
        self.tried: list[Mapping[str, Any]] = []
        self.said: list[str] = []
        self._fails, self._stops_at = fails, stops_at

    def __call__(self, place: Path, parameters: Mapping[str, Any]) -> float:
        if self._stops_at == len(self.tried):
            raise Cancelled("it was stopped")
        self.tried.append(parameters)
        place.mkdir()
        if self._fails(len(self.tried)):
            raise TrainingError("it crashed")
        return float((parameters["kind"] == "b") - parameters["rate"])

    def search(self, root: Path, seed: int = 1, asked: Search = ASKED) -> Found:
        return search(asked, root, seed, self, lambda line, share: self.said.append(line))


def test_the_best_trial_is_kept_and_no_other(tmp_path: Path) -> None:
    trials = Trials()
    found = trials.search(tmp_path)
    assert found.trials == len(trials.tried) == 6
    best = max(trials.tried, key=lambda p: (p["kind"] == "b") - p["rate"])
    assert dict(best) == found.parameters
    assert list(tmp_path.glob("trial-*")) == [found.place]
    for tried in trials.tried:
        assert 1e-4 <= tried["rate"] <= 1.0 and tried["layers"] in (1, 2, 3) and tried["kind"] in ("a", "b")


def test_a_search_may_look_for_the_least(tmp_path: Path) -> None:
    trials = Trials()
    found = trials.search(tmp_path, asked=ASKED.model_copy(update={"maximise": False}))
    assert found.result == min((p["kind"] == "b") - p["rate"] for p in trials.tried)


def test_the_same_seed_tries_the_same_also_after_an_interruption(tmp_path: Path) -> None:
    whole, first, rest = Trials(), Trials(stops_at=3), Trials()
    expected = whole.search(tmp_path / "whole")
    with pytest.raises(Cancelled):
        first.search(tmp_path / "parts")
    found = rest.search(tmp_path / "parts")
    assert first.tried + rest.tried == whole.tried
    assert (found.parameters, found.result) == (expected.parameters, expected.result)
    assert Trials().search(tmp_path / "other", seed=2).parameters != expected.parameters


def test_a_trial_that_fails_is_passed_over_and_a_search_of_failures_fails(tmp_path: Path) -> None:
    some = Trials(fails=lambda number: number % 2)
    assert some.search(tmp_path / "some").trials == 3
    assert "trial 1 of 6 failed: it crashed" in some.said
    with pytest.raises(TrainingError, match="it crashed"):
        Trials(fails=lambda number: True).search(tmp_path / "none")
