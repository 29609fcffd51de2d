"""Rows that were drawn for the hub's teacher: their chance is kept with them, and its inverse weighs their label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import unpack
from edge_agent.ports import Chosen, FeedbackItem, FeedbackResult
from edgeloop.insights import Observer, Window
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.insights.privacy.rule import PrivacyRule
from tests.doubles.recording import record
from tests.unit.observing.doubles import batch, digest, profile, release

CHANCE = {0: 0.5, 2: 0.01}


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What windows get of labels: (number with features, weights)."""
    seen: list[Any] = []
    feedback = Observer.feedback

    def spy(self: Observer, window: Window, features: Any, *args: Any, **more: Any) -> None:
        weights = more["weights"]
        seen.append((0 if features is None else len(features), None if weights is None else weights.tolist()))
        feedback(self, window, features, *args, **more)

    monkeypatch.setattr(Observer, "feedback", spy)
    return seen


@pytest.fixture
def observing(tmp_path: Path) -> Iterator[Observing]:
    found = opened(tmp_path)
    yield found
    found.stop()


def opened(folder: Path) -> Observing:
    return Observing(folder / "agent.db", profile_of=lambda digest: profile())


def answer(observing: Observing, name: str, *, thinned: bool = False) -> Any:
    """A request of three rows, the first and the last of which were drawn; returns their features."""
    loaded, (inputs, outputs) = release(), batch(3, 5)
    observing.recorder.wanted_outputs(loaded)
    features = outputs["features"]
    chosen = {row: Chosen(chance, features[row].copy()) for row, chance in CHANCE.items()}
    observing.recorder.choose(name, chosen)
    if thinned:
        observing.recorder.record_scores(loaded, name, outputs["scores"], "", 1000, 900)
    else:
        record(observing.recorder, loaded, name, inputs, outputs, 1000)
    return features


def teach(observing: Observing, name: str, row: int, most: float = 20.0) -> FeedbackResult:
    return observing.recorder.feedback([FeedbackItem(name, 1, row, most)])


@pytest.mark.parametrize("thinned", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
def test_the_teachers_label_weighs_the_inverse_of_the_chance(
    tmp_path: Path, weighed: list[Any], thinned: bool, restarted: bool
) -> None:
    observing = opened(tmp_path)
    features = answer(observing, "a", thinned=thinned)
    answer(observing, "b", thinned=thinned)
    if restarted:
        observing.stop()
        observing = opened(tmp_path)
    assert teach(observing, "a", 0).accepted == teach(observing, "a", 2).accepted == 1
    assert teach(observing, "b", 2, 3.0).accepted == 1
    assert weighed == [(1, [2.0]), (1, [20.0]), (1, [3.0])], "with features, though thinned out; and clipped"
    found = observing.recorder._retention.find("a", 2)
    assert found is not None and not isinstance(found, str) and found.features is not None
    np.testing.assert_array_equal(found.features, features[2])
    assert teach(observing, "a", 0).duplicate == ["a"]
    observing.stop()


def test_anybody_elses_label_weighs_one(observing: Observing, weighed: list[Any]) -> None:
    answer(observing, "a")
    assert observing.recorder.feedback([FeedbackItem("a", 1, 0), FeedbackItem("a", 1, 1)]).accepted == 2
    assert weighed == [(2, [1.0, 1.0])]


def test_what_the_teacher_says_is_counted_together_and_never_twice(observing: Observing, weighed: list[Any]) -> None:
    answer(observing, "a")
    answer(observing, "b")
    observing.recorder.taught([FeedbackItem("a", 1, 0, 20.0), FeedbackItem("nobody", 1, 0, 20.0)])
    observing.recorder.taught([FeedbackItem("b", 1, 2, 20.0)])
    assert weighed == [], "the client of the same answer waits for the interpreter"
    assert observing.recorder.feedback([FeedbackItem("a", 1, 0)]).duplicate == ["a"], "the teacher was first"
    assert weighed == [(2, [2.0, 20.0])]


def test_what_the_teacher_says_is_in_the_windows_of_an_agent_that_ends(tmp_path: Path, weighed: list[Any]) -> None:
    observing = opened(tmp_path)
    observing.recorder.start()
    answer(observing, "a")
    observing.recorder.taught([FeedbackItem("a", 1, 0, 20.0)])
    observing.stop()
    assert weighed == [(1, [2.0])]


def test_a_flood_of_labels_waits_for_itself(observing: Observing, weighed: list[Any]) -> None:
    answer(observing, "a")
    observing.recorder.taught([FeedbackItem("a", 1, 0, 20.0), *([FeedbackItem("nobody", 1, 0, 20.0)] * 2000)])
    assert weighed == [(1, [2.0])], "nothing grows that nobody reads"


def test_a_row_that_was_never_sent_has_no_teacher(observing: Observing, weighed: list[Any]) -> None:
    answer(observing, "a")
    ((name, reason),) = teach(observing, "a", 1).invalid
    assert name == "a" and "not sent" in reason and weighed == []
    assert teach(observing, "nobody", 0).unknown == ["nobody"]


def test_under_noise_every_label_weighs_one(observing: Observing, weighed: list[Any]) -> None:
    observing.recorder.follow(InsightsPolicy(privacy=PrivacyRule(1.0)))
    answer(observing, "a")
    assert teach(observing, "a", 2).accepted == 1
    assert weighed == [(1, None)]


def test_what_was_sent_is_counted_in_the_window_of_its_release(observing: Observing) -> None:
    answer(observing, "a")
    observing.recorder.settle()
    for _ in range(3):
        observing.recorder.escalated(digest(1), "")
    observing.recorder.escalated(digest(9), "")  # a release that nobody knows
    observing.recorder.flush()
    ((body,),) = observing.store.rows("SELECT body FROM outbox")
    assert unpack(body, profile().schema).escalations == 3
    assert observing.ledger.totals()["escalations"] == 3
