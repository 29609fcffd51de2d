"""A teacher's answer becomes a label only where the channel's owner wants devices to learn from teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_agent.escalating.allowance import Allowance
from edge_agent.escalating.escalator import Escalator
from edge_agent.observing.store import Store
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.protocol import TeacherAnswer
from tests.doubles.door import NotingRecorder


class _InForce:
    """A policy that nobody changes."""

    current = EscalationPolicy(mode="async")

    def follow(self, follower: Any) -> None:
        follower(self.current)


def test_an_answer_is_a_label_unless_the_hub_says_that_it_teaches_nothing(tmp_path: Path) -> None:
    store, recorder = Store(tmp_path / "agent.db"), NotingRecorder()
    escalator = Escalator(_InForce(), Allowance(store, _InForce.current), recorder, "camera-1")  # type: ignore[arg-type]
    escalator.take([TeacherAnswer("a", label=1, learn=False), TeacherAnswer("b", label=2), TeacherAnswer("c", 0, None)])
    assert [(item.prediction_id, item.label) for item in recorder.items] == [("b", 2)]
    store.close(clean=True)
