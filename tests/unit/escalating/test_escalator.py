"""The escalator between a data plane and the carriers: what is drawn, sent and waited for, at no answer's cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_agent.escalating import board
from edge_agent.escalating.allowance import Allowance
from edge_agent.escalating.carriers import Outcome
from edge_agent.escalating.escalator import Escalator
from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.store import Store
from edge_agent.ports import LoadedRelease
from edge_agent.serving.calls import Answer
from edgeloop.cascade.learning import FEWEST, OPINION, Learner
from edgeloop.cascade.policy import KEY, EscalationLimits, EscalationPolicy
from edgeloop.protocol import Escalation, TeacherAnswer
from tests.doubles.door import NotingRecorder

ALL = {"threshold": 0.0, "softness": 1e-6, "floor": 1.0, "max_share": 1.0, "signals": ("confidence",)}
SCORES = np.array([[0.6, 0.3, 0.1]], np.float32)
PLACES = {"p": 0, "f": 1}


class Carriers:
    """Takes every message, or none."""

    def __init__(self) -> None:
        self.connected, self.takes = True, True
        self.sent: list[Escalation] = []

    def send(self, payload: bytes, timeout_s: float | None, told: Callable[[Outcome], None]) -> None:
        if self.takes:
            self.sent.append(Escalation.from_bytes(payload))
        told(Outcome(self.takes, reason="" if self.takes else "no room at the broker"))

    def stop(self) -> None:
        """Nothing is under way."""


class World:
    """An escalator whose owner lets everything travel."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "agent.db")
        limits = EscalationLimits(("input", "small", "features"))
        policy = PolicyInForce(self.store, limits, EscalationPolicy, KEY)
        self.recorder, self.carriers, self.silent_s = NotingRecorder("p", "f"), Carriers(), 0.0
        self.escalator = Escalator(policy, Allowance(self.store, policy.current), self.recorder, "dev-1")
        self.escalator.start()
        outputs = (SimpleNamespace(name="p", role="probabilities"), SimpleNamespace(name="f", role="features"))
        session = SimpleNamespace(
            outputs=outputs,
            probabilities=lambda found: found.get("p"),
            output={"probabilities": "p", "features": "f"}.get,
        )
        package = SimpleNamespace(meta=SimpleNamespace(labels=("a", "b", "c")))
        self.loaded = LoadedRelease("sha256:" + "1" * 64, package, session, None)  # type: ignore[arg-type]

    def follow(self, **policy: Any) -> None:
        self.escalator.policy.take(EscalationPolicy(**{**ALL, **policy}).to_wire())

    def join(self) -> None:
        self.escalator.join(self.carriers, lambda: "stable", lambda: self.silent_s)  # type: ignore[arg-type]

    def draw(self, name: str, x: Any = None, rows: int = 1) -> Any:
        x = np.ones((rows, 4), np.float32) if x is None else x
        outputs = [np.repeat(SCORES, rows, axis=0), np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)]
        asked = self.escalator.draw(self.loaded, name, {"x": x}, outputs, PLACES, "line-1", 30.0)
        if asked is not None:
            asked.send()
        return asked

    def sent(self, count: int) -> list[Escalation]:
        """Messages, when there are so many."""
        until(lambda: len(self.carriers.sent) >= count)
        return self.carriers.sent

    def close(self) -> None:
        self.escalator.stop()
        self.store.close(clean=True)


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


def own(asked: Any) -> Answer:
    return Answer(asked.id, "m", "1", (("p", SCORES),), escalated=asked.rows)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.join()
    yield world
    world.close()


def test_each_drawn_row_is_a_message_of_its_own(world: World) -> None:
    world.follow(mode="async")
    asked = world.draw("a", rows=3)
    assert asked.rows == (0, 1, 2) and not asked.waits
    first, *_ = world.sent(3)
    assert (first.device, first.channel, first.release, first.segment) == (
        "dev-1",
        "stable",
        "sha256:" + "1" * 64,
        "line-1",
    )
    assert {message.index for message in world.carriers.sent} == {0, 1, 2}
    assert first.predicted == 0 and first.confidence == pytest.approx(0.6) and first.probability == 1.0
    np.testing.assert_array_equal(first.tensors["x"].row(), np.ones(4))
    chosen = world.recorder.chosen["a"]
    np.testing.assert_array_equal(chosen[2].features, [4.0, 5.0])
    assert chosen[2].probability == 1.0
    until(lambda: world.recorder.sent == [("sha256:" + "1" * 64, "line-1")] * 3)


def test_nothing_is_drawn_where_it_could_not_leave(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follow(mode="async")
    assert world.escalator.on and world.draw("a") is None, "there is no line to the hub yet"
    world.join()
    world.carriers.connected = False
    assert world.draw("b") is None and world.escalator.status()["held"] == "the broker is away"
    world.carriers.connected = True
    assert world.draw("x" * 129) is None, "such an id does not travel"
    assert world.draw("c") is not None
    assert world.draw("c") is None, "the hub would give the first one's answer again"
    world.follow(mode="off")
    assert not world.escalator.on and world.draw("d") is None
    world.close()


def test_pictures_travel_small(world: World) -> None:
    world.follow(mode="async", travels="small", small_side=8)
    picture = np.random.default_rng(0).random((1, 3, 32, 16)).astype(np.float32)
    assert world.draw("a", picture) is not None
    (message,) = world.sent(1)
    assert message.form == "small" and message.tensors["x"].shape == (3, 8, 4)
    assert message.tensors["x"].row().mean() == pytest.approx(picture.mean(), abs=1e-3)


def test_what_cannot_be_escalated_costs_no_answer(world: World) -> None:
    world.follow(mode="async")
    assert world.draw("a", np.ones((1, 4), np.complex64)) is None
    world.loaded.session.probabilities = lambda found: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert world.draw("b") is None
    assert world.escalator.status()["failed"] == 2


def test_a_message_that_cannot_leave_is_given_up_and_holds_the_next_back(world: World) -> None:
    world.follow(mode="wait", cooldown_s=3600.0, deadline_ms=60_000)
    world.carriers.takes = False
    asked = world.draw("a")
    answer = asked.better(own(asked)).result(20)
    assert answer.teachers == {} and answer.escalated == (0,)
    (row,) = until(lambda: world.escalator.answers("a"))
    assert row["state"] == "unanswered" and row["reason"] == "no room at the broker"
    assert world.draw("b") is None and "no room" in world.escalator.status()["held"]
    assert world.recorder.sent == []


def test_the_clients_come_before_the_windows_and_labels_that_may_be_learned_go_there(world: World) -> None:
    world.follow(mode="wait", deadline_ms=60_000, max_weight=7.0)
    asked = world.draw("a", rows=2)
    future = asked.better(Answer("a", "m", "1", (("p", np.repeat(SCORES, 2, axis=0)),), escalated=asked.rows))
    world.sent(2)
    world.escalator.take([TeacherAnswer("a", 0, "c", 0.9, "big")])
    assert not future.done()
    world.escalator.take([TeacherAnswer("a", 1, 1, None, "other", learn=False), TeacherAnswer("a", 0, "c", 0.9, "big")])
    answer = future.result(20)
    assert answer.parameters == {
        "escalated": True,
        "escalated_rows": "0,1",
        "teacher": "big,other",
        "teacher_rows": "0,1",
    }
    assert dict(answer.outputs)["p"].argmax(axis=1).tolist() == [2, 1]
    items = world.recorder.items
    assert [(item.prediction_id, item.index, item.label, item.most_weight) for item in items] == [("a", 0, "c", 7.0)]
    assert world.escalator.status()["answered"] == 2


def test_the_edges_answer_stands_where_a_calibrated_teacher_is_far_less_sure(world: World) -> None:
    world.follow(mode="wait", deadline_ms=60_000)  # 0.6 to 0.4 of the edge, against 1 to 19
    asked = world.draw("a", rows=3)
    future = asked.better(Answer("a", "m", "1", (("p", np.repeat(SCORES, 3, axis=0)),), escalated=asked.rows))
    world.sent(3)
    world.escalator.take([TeacherAnswer("a", 0, "c", 0.05, "big", calibrated=True)])
    world.escalator.take(
        [TeacherAnswer("a", 1, "c", 0.05, "big"), TeacherAnswer("a", 2, "a", 0.05, "big", calibrated=True)]
    )
    answer = future.result(20)
    assert answer.parameters == {
        "escalated": True,
        "escalated_rows": "0,1,2",
        "teacher": "big",
        "teacher_rows": "1,2",
        "outvoted": "big",
    }
    scores = dict(answer.outputs)["p"]
    np.testing.assert_array_equal(scores[0], SCORES[0])
    assert scores.argmax(axis=1).tolist() == [0, 2, 0]
    first, second, _ = world.escalator.answers("a") or []
    assert (first["label"], first["name"], first["outvoted"], first["teacher"]) == (0, "a", 2, "big")
    assert second["label"] == 2 and "outvoted" not in second
    assert [item.label for item in world.recorder.items] == ["c", "c", "a"], "what is learned is the teacher's"
    assert world.escalator.status()["outvoted"] == 1


def test_nobody_waits_while_it_learns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    learning, go_on, fit = threading.Event(), threading.Event(), Learner.fit

    def slowly(learner: Learner) -> None:
        learning.set()
        assert go_on.wait(60)
        fit(learner)

    monkeypatch.setattr(Learner, "fit", slowly)
    world.follow(mode="wait", deadline_ms=60_000, signals=("confidence", OPINION))
    try:
        for number in range(FEWEST):
            asked = world.draw(f"p{number}")
            future = asked.better(own(asked))
            world.escalator.take([TeacherAnswer(asked.id, 0, 2, 0.9, "big")])
            assert future.result(20).teachers == {0: "big"}
        assert learning.wait(20), "in a thread of its own"
        asked = world.draw("meanwhile")
        world.escalator.take([TeacherAnswer("meanwhile", 0, 1, 0.9, "big")])
        assert asked.better(own(asked)).result(20).teachers == {0: "big"}
    finally:
        go_on.set()
    until(lambda: next_of(world, 0.8))  # the teacher has differed each time


def test_what_it_has_learned_is_known_again_after_a_restart(tmp_path: Path) -> None:
    for turn in range(2):
        world = World(tmp_path)
        world.join()
        world.follow(mode="async", signals=("confidence", OPINION))
        try:
            for number in range(FEWEST if turn == 0 else 0):
                assert world.draw(f"p{number}") is not None
                world.escalator.take([TeacherAnswer(f"p{number}", 0, 2, 0.9, "big")])
            until(partial(next_of, world, 0.8))  # the teacher has differed each time
        finally:
            world.close()


def next_of(world: World, least: float) -> Any:
    """A row as hard as that, or None: the next one is not."""
    asked = world.draw(f"next-{time.monotonic_ns()}")
    return asked if asked.of_index[0].hardness > least else None


def test_a_bounded_number_of_clients_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "MOST_WAITING", 2)
    world.follow(mode="wait", deadline_ms=60_000)
    asked = [world.draw(f"p{number}") for number in range(3)]
    assert [one.waits for one in asked] == [True, True, False]
    futures = [one.better(own(one)) for one in asked[:2]]
    world.escalator.let_go()
    assert all(future.result(20).teachers == {} for future in futures), "an agent that stops keeps nobody waiting"
    assert not world.draw("late").waits


def test_a_client_that_has_gone_is_no_trouble(world: World) -> None:
    world.follow(mode="wait", deadline_ms=60_000)
    asked = world.draw("a")
    future = asked.better(own(asked))
    assert future.cancel()
    world.sent(1)
    world.escalator.take([TeacherAnswer("a", 0, 2, 0.9, "big")])
    (row,) = world.escalator.answers("a") or []
    assert row["state"] == "answered" and world.escalator.status()["clients_waiting"] == 0


def test_draws_and_answers_from_many_threads_are_all_counted(world: World) -> None:
    world.follow(mode="wait", deadline_ms=60_000)
    done: list[Any] = []

    def client(number: int) -> None:
        for turn in range(20):
            asked = world.draw(f"{number}-{turn}")
            if asked.waits:
                future = asked.better(own(asked))
                world.escalator.take([TeacherAnswer(asked.id, 0, 2, 0.9, "big")])
                done.append(future.result(20).teachers)
            else:
                world.escalator.take([TeacherAnswer(asked.id, 0, 2, 0.9, "big")])
                done.append({0: "big"})

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [{0: "big"}] * 120
    until(lambda: world.escalator.status()["sent"] == 120)
    status = world.escalator.status()
    assert (status["answered"], status["late"], status["clients_waiting"]) == (120, 0, 0)


def test_a_hub_that_is_gone_behind_its_broker_is_said_to_be(world: World) -> None:
    world.follow(mode="async")
    assert world.draw("lost") is not None
    world.sent(1)
    (row,) = world.escalator.answers("lost") or []
    assert row["state"] == "waiting" and row["since"] > 1e9 and "reason" not in row
    world.silent_s = 42.0
    (row,) = world.escalator.answers("lost") or []
    assert row["state"] == "unreachable"
    assert row["reason"] == "the hub has acknowledged nothing for 42 s; the answer may still come"
    until(lambda: world.escalator.status()["pending"] == 1)
    told = world.escalator.status()
    assert told["hub_silent_s"] == 42.0 and told["held"] == "the hub has acknowledged nothing for 42 s"
    assert world.draw("held") is None, "the one before tries whether it is back"
    # No client waits for a hub that is not there, and what comes late is taken.
    world.follow(mode="wait", deadline_ms=20_000)
    world.escalator._reach._probe_until = 0.0
    assert not world.draw("probe").waits
    world.silent_s = 0.0
    world.escalator.take([TeacherAnswer("lost", 0, 2, 0.9, "big")])
    (row,) = world.escalator.answers("lost") or []
    assert row["state"] == "answered" and "since" not in row
    assert world.draw("back").waits
