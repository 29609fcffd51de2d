"""The cascade in a real agent: hard answers go to a teacher over a real broker, and come back better."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.package import Package
from edgeloop.protocol import Escalation, TeacherAnswer
from tests.doubles import digits
from tests.doubles.installed import install
from tests.doubles.teacher_hub import TeacherHub
from tests.integration.agent_process import FLEET, AgentProcess
from tests.integration.brokers import BrokerProcess, broker_or_skip, free_port
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.hub_process import wait_for

#: Everything is harder than this, and next to everything is drawn.
ALL = {"threshold": 0.0, "softness": 1e-6, "floor": 1.0, "max_share": 1.0}


GRPC_PORT = free_port() if find_spec("grpc") else None


def teach(escalation: Escalation) -> TeacherAnswer:
    """It knows the digits by heart."""
    (tensor,) = escalation.tensors.values()
    test = digits.splits().test
    (place,) = np.flatnonzero((test.x == tensor.row()).all(axis=1))[:1]
    return TeacherAnswer(escalation.id, escalation.index, int(test.y[place]), 0.9, "big", 12.0)


class World:
    """A broker, a hub and an agent whose owner lets inputs travel."""

    def __init__(self, folder: Path, package: Package) -> None:
        self.broker: BrokerProcess = broker_or_skip("mosquitto", folder)
        self.hub = TeacherHub(FLEET, self.broker.port, teach)
        self.agent = AgentProcess(
            folder / "agent",
            insecure=True,
            hub=self.hub.url,
            broker_port=self.broker.port,
            escalation_travels=["input", "features"],
            **({} if GRPC_PORT is None else {"grpc_port": GRPC_PORT}),
        )
        install(package, self.agent.data)
        self.agent.start(ready=True)

    def follow(self, **policy: Any) -> None:
        """Have the agent follow a policy of escalation, from a clean slate."""
        asked = EscalationPolicy(**policy)
        self.hub.got.clear()
        self.hub.delay_s, self.hub.silent, self.hub.status, self.hub.teacher = 0.0, False, 200, teach
        wait_for(lambda: self.hub.link.subscribed, 20, "the hub's line")

        self.hub.ask_for(asked)

        def follows() -> bool:
            found = self.agent.status()["escalation"]
            return found["policy"] == asked.to_wire() and not found["held"] + found["trouble"]

        wait_for(follows, 30, f"the policy in force: {self.agent.log}")

    def ask(self, identity: str, rows: Any, **parameters: Any) -> dict[str, Any]:
        """One inference."""
        tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        body = {"id": identity, "inputs": [tensor], "parameters": parameters}
        answer = self.agent.http.post("/v2/models/digits/infer", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def answered(self, identity: str) -> list[dict[str, Any]]:
        """What the agent knows of a request when all of its rows are answered."""

        def found() -> list[dict[str, Any]] | None:
            answer = self.agent.http.get(f"/edgeloop/v1/answers/{identity}")
            rows = answer.json().get("answers", [])
            return rows if rows and all(row["state"] != "waiting" for row in rows) else None

        wait_for(lambda: found() is not None, 20, f"answers to {identity}\n{self.agent.log}")
        return found() or []

    def got(self, prefix: str) -> list[Escalation]:
        """Escalations that have come of requests whose ids begin so; those of an earlier test may come late."""
        return [escalation for escalation, _ in list(self.hub.got) if escalation.id.startswith(prefix)]

    def ledger(self) -> dict[str, int]:
        """Totals of closed windows, when what was counted is in them."""
        self.agent.http.post("/edgeloop/v1/flush")
        return dict(self.agent.status()["ledger"])

    def close(self) -> None:
        self.agent.close()
        self.hub.stop()
        self.broker.kill()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("cascade"), package)
    yield world
    world.close()


def test_the_edge_answers_now_and_the_teacher_later(world: World) -> None:
    world.follow(mode="async", **ALL)
    before = world.ledger()
    test = digits.splits().test
    for number in range(20):
        said = world.ask(f"async-{number}", test.x[number : number + 1])
        assert said["parameters"] == {"escalated": True}
    for number in range(20):
        (row,) = world.answered(f"async-{number}")
        edge = next(o["data"][0] for o in world.ask("", test.x[number : number + 1])["outputs"] if o["name"] == "label")
        assert row["predicted"] == edge
        assert (row["label"], row["teacher"], row["confidence"]) == (int(test.y[number]), "big", 0.9)
    got = {escalation.id: escalation for escalation, way in world.hub.got if way == "mqtt"}
    assert {f"async-{number}" for number in range(20)} <= set(got)
    assert all(0 < escalation.probability <= 1 and not escalation.wait for escalation in got.values())
    labelled = len(got)
    wait_for(
        lambda: (
            world.ledger()["escalations"] - before["escalations"] >= labelled
            and world.ledger()["feedback"] - before["feedback"] >= labelled
        ),
        20,
        f"{labelled} escalations and labels in the ledger",
    )
    assert "parameters" not in world.ask("async-0", test.x[:1]), "an id that comes again would get the old answer"
    assert world.agent.http.get("/edgeloop/v1/answers/nobody").status_code == 404


def outputs(said: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in said["outputs"]}


def test_a_client_waits_for_the_better_answer(world: World) -> None:
    world.follow(mode="wait", deadline_ms=20_000, **ALL)
    world.hub.teacher = lambda asked: TeacherAnswer(asked.id, asked.index, "7", 0.9, "big", 5.0)
    test = digits.splits().test
    alone = world.ask("wait-1", test.x[:1])
    assert alone["parameters"] == {"escalated": True, "teacher": "big"}
    assert outputs(alone)["label"] == [7]
    scores = outputs(alone)["probabilities"]
    assert int(np.argmax(scores)) == 7 and scores[7] == pytest.approx(0.9) and sum(scores) == pytest.approx(1.0)
    world.hub.teacher = lambda asked: TeacherAnswer(
        asked.id, asked.index, "7" if asked.predicted != 7 else "8", 1e-9, "big", 5.0, calibrated=True
    )
    own = world.ask("wait-2", test.x[:1])
    assert own["parameters"] == {"escalated": True, "outvoted": "big"}
    (row,) = world.answered("wait-2")
    assert outputs(own)["label"] == [row["predicted"]] == [row["label"]]
    world.hub.teacher = teach
    batch = world.ask("wait-5", test.x[:5])
    assert batch["parameters"] == {
        "escalated": True,
        "escalated_rows": "0,1,2,3,4",
        "teacher": "big",
        "teacher_rows": "0,1,2,3,4",
    }
    assert outputs(batch)["label"] == test.y[:5].tolist()
    assert all(escalation.wait and escalation.deadline_ms <= 20_000 for escalation in world.got("wait"))


def test_whom_the_teacher_lets_down_gets_the_edges_own_and_nobody_waits_again(world: World) -> None:
    world.follow(mode="wait", deadline_ms=300, cooldown_s=0.0, **ALL)
    own = digits.splits().test.x[:1]
    world.hub.silent = True
    began = time.monotonic()
    said = world.ask("late", own)
    assert time.monotonic() - began >= 0.29
    assert said["parameters"] == {"escalated": True} and world.agent.status()["escalation"]["trouble"]
    # Without a cool-down the next one tries whether the hub answers again, and its client does not wait for it.
    patient = [world.ask(f"after-{number}", own) for number in range(3)]
    assert [one.get("parameters") for one in patient].count({"escalated": True}) <= 1
    assert all(not escalation.wait for escalation in world.got("after"))
    world.hub.say(world.agent.device, TeacherAnswer("late", 0, 3, None, "big", 900.0))
    (row,) = world.answered("late")
    assert (row["label"], row["name"], row["ms"]) == (3, "3", 900.0)

    def mended() -> bool:
        found = world.agent.status()["escalation"]
        return found["trouble"] == "" and found["late"] == 1

    wait_for(mended, 20, "the doubt to end")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TeacherAnswer("", 0, None, reason="the teachers' money is spent for today"), "money is spent"),
        (TeacherAnswer("", 0, 99, 0.9, "big"), "no class of this model"),
        (TeacherAnswer("", 0, "a cat", 0.9, "big"), "no class of this model"),
    ],
)
def test_an_answer_that_is_none_is_said_to_be_none(world: World, answer: TeacherAnswer, reason: str) -> None:
    world.follow(mode="wait", deadline_ms=20_000, cooldown_s=0.0, **ALL)
    world.hub.teacher = lambda asked: replace(answer, id=asked.id, index=asked.index)
    name = f"none-{reason[:5]}-{answer.label}"
    said = world.ask(name, digits.splits().test.x[:1])
    assert said["parameters"] == {"escalated": True}
    (row,) = world.answered(name)
    assert row["state"] == "unanswered" and reason in row["reason"] and "label" not in row
    # The next that is answered ends the doubt.
    world.hub.say(world.agent.device, TeacherAnswer(name, 0, 1, None, "big"))


def test_a_killed_agent_forgets_no_chance_and_nothing_else(world: World) -> None:
    world.follow(mode="async", **ALL)
    world.hub.silent = True
    assert world.ask("killed", digits.splits().test.x[:1])["parameters"] == {"escalated": True}
    wait_for(lambda: world.got("killed"), 20, "the escalation")
    before = world.ledger()
    world.agent.kill()
    world.agent.start(ready=True)
    wait_for(lambda: world.agent.status()["messaging"]["connected"], 20, "the line to the hub")
    assert world.agent.status()["ledger"]["predictions"] == before["predictions"]
    world.hub.say(world.agent.device, TeacherAnswer("killed", 0, 1, None, "a person"))
    wait_for(lambda: world.ledger()["feedback"] > before["feedback"], 20, "the label of the killed agent's answer")
    assert world.agent.status()["escalation"]["mode"] == "async", "the policy is remembered"


def test_features_travel_instead_where_that_is_asked_for(world: World) -> None:
    world.follow(mode="async", travels="features", **ALL)
    world.hub.silent = True
    world.ask("features", digits.splits().test.x[:1])
    wait_for(lambda: world.got("features"), 20, "the escalation")
    (escalation,) = world.got("features")
    assert escalation.form == "features" and {n: t.shape for n, t in escalation.tensors.items()} == {"features": (64,)}


@pytest.mark.skipif(GRPC_PORT is None, reason="pip install 'edgeloop[agent,grpc]'")
def test_a_client_of_the_grpc_door_waits_as_well(world: World) -> None:
    from edge_agent.serving.grpc import inference_pb2 as pb
    from tests.doubles.grpc_door import calling, request

    world.follow(mode="wait", deadline_ms=20_000, **ALL)
    world.hub.teacher, world.hub.delay_s = teach, 0.2
    test = digits.splits().test
    asked = request(("input", "FP32", [2, 64], test.x[:2].tobytes()), id="grpc-1")
    assert GRPC_PORT is not None
    with calling(GRPC_PORT) as caller:
        said = pb.ModelInferResponse.FromString(caller.infer(asked.SerializeToString(), timeout=20.0))
    parameters = {name: value.string_param or value.bool_param for name, value in said.parameters.items()}
    assert parameters["escalated"] is True and parameters["teacher"] == "big" and parameters["teacher_rows"] == "0,1"
    place = [output.name for output in said.outputs].index("label")
    assert np.frombuffer(said.raw_output_contents[place], np.int64).tolist() == test.y[:2].tolist()
    assert all(escalation.wait for escalation in world.got("grpc"))
    # A client that waits for less gets the edge's own.
    world.hub.silent = True
    late = request(("input", "FP32", [1, 64], test.x[:1].tobytes()), id="grpc-2")
    late.parameters["timeout"].int64_param = 300_000
    with calling(GRPC_PORT) as caller:
        said = pb.ModelInferResponse.FromString(caller.infer(late.SerializeToString(), timeout=20.0))
    assert said.parameters["escalated"].bool_param and "teacher" not in said.parameters
    world.hub.say(world.agent.device, TeacherAnswer("grpc-2", 0, 1, None, "big"))  # it ends the doubt


def test_what_the_owner_does_not_let_travel_stays(world: World) -> None:
    world.hub.ask_for(EscalationPolicy(mode="async", travels="small", **ALL))
    wait_for(lambda: world.agent.status()["escalation"]["mode"] == "off", 20, "the policy in force")
    assert "parameters" not in world.ask("kept", digits.splits().test.x[:1])


def test_metrics_tell_the_same(world: World) -> None:
    text, told = world.agent.http.get("/metrics").text, world.agent.status()["escalation"]
    assert f"edge_agent_escalations_total {float(told['sent'])!r}" in text
    assert f"edge_agent_escalation_bytes_total {float(told['bytes'])!r}" in text


def test_without_a_broker_every_answer_is_the_edges_own(world: World) -> None:
    world.follow(mode="wait", deadline_ms=20_000, **ALL)
    world.hub.silent = True
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(world.ask, "cut", digits.splits().test.x[:1])
        wait_for(lambda: world.got("cut"), 20, "the escalation")
        world.broker.kill()
        assert waiting.result(15)["parameters"] == {"escalated": True}, "it is let go as soon as the broker is away"
    assert "parameters" not in world.ask("alone", digits.splits().test.x[:1])
    assert world.agent.status()["escalation"]["held"] == "the broker is away"
