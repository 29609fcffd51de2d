"""A model behind the Open Inference Protocol: a running agent's real door, and a server that answers nonsense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cloud_hub.records import Database
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.oip import OipTeacher
from cloud_hub.teachers.paid import Till
from cloud_hub.teachers.port import Malformed, Opinion, Outcome, TooDear, Unavailable, Unfit
from cloud_hub.teachers.specs import OipSpec
from cloud_hub.teachers.spending import Spending
from tests.doubles.door import ServingKit
from tests.doubles.openai_server import OpenAiServer, refuses, sends
from tests.doubles.packages import answers, make_model, make_package
from tests.unit.teachers.kit import DIGITS, question

ROWS = np.random.default_rng(3).random((5, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def purse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spending]:
    db = Database.in_folder(tmp_path_factory.mktemp("purse"))
    db.migrate()
    yield Spending(db)
    db.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingKit]:
    kit = ServingKit(make_package(tmp_path_factory.mktemp("served") / "package", name="large", seed=4))
    yield kit
    kit.running.close()


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    made = OpenAiServer(sends(b"{}"))
    yield made
    made.close()


@pytest.fixture
def teacher(purse: Spending) -> Iterator[Any]:
    made: list[OipTeacher] = []

    def make(url: str, name: str = "far", **spec: Any) -> OipTeacher:
        values = OipSpec(**{"kind": "oip", "url": url, "model": "large", "batch": 8, **spec})
        made.append(OipTeacher(values, Keys({}), Till(name, purse, values.spend_per_day, None)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_running_agent_answers_several_in_one_call(teacher: Any, agent: ServingKit) -> None:
    found = teacher(agent.running.url).answer([question(row) for row in ROWS], 20.0)
    expected = answers(make_model(4), ROWS)
    assert [one.label for one in found] == expected["label"].tolist()
    assert [one.confidence for one in found] == pytest.approx(expected["probabilities"].max(axis=1).tolist(), abs=1e-5)
    by_label = teacher(agent.running.url, output="label", labels=DIGITS[::-1]).answer([question(ROWS[0])], 20.0)
    assert by_label == [Opinion(9 - int(expected["label"][0]))]


def test_what_the_agent_refuses_is_said(teacher: Any, agent: ServingKit) -> None:
    (wrong,) = teacher(agent.running.url).answer([question(np.zeros(63, np.float32))], 20.0)
    assert isinstance(wrong, Unfit) and "400" in str(wrong)
    (absent,) = teacher(agent.running.url, model="another").answer([question(ROWS[0])], 20.0)
    assert isinstance(absent, Unavailable) and "404" in str(absent)
    (nan,) = teacher(agent.running.url).answer([question(ROWS[0] * np.nan)], 20.0)
    assert isinstance(nan, Unfit) and "not finite" in str(nan)


def test_names_of_inputs_may_differ(teacher: Any, agent: ServingKit) -> None:
    (renamed,) = teacher(agent.running.url, inputs={"pixels": "x"}).answer([question(ROWS[0], name="pixels")], 20.0)
    assert isinstance(renamed, Opinion)


def asked(teacher: Any, server: OpenAiServer, said: Any, count: int = 1, **spec: Any) -> list[Outcome]:
    server.behaviours[:] = [sends(said if isinstance(said, bytes) else json.dumps({"outputs": said}).encode())]
    return list(teacher(server.url, **spec).answer([question(row) for row in ROWS[:count]], 20.0))


def test_outputs_of_several_kinds_are_read(teacher: Any, server: OpenAiServer) -> None:
    def output(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [1, len(data)], "data": data}

    (logits,) = asked(teacher, server, [output("scores", "FP32", [0.0, 3.0, 1.0])])
    assert isinstance(logits, Opinion) and logits.label == 1
    assert logits.confidence == pytest.approx(float(np.exp(3) / (1 + np.exp(3) + np.exp(1))))
    names = [{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["4", "2"]}]
    assert asked(teacher, server, names, 2) == [Opinion(4), Opinion(2)]
    both = [output("label", "INT64", [9]), output("probabilities", "FP32", [0.0, 0.25, 0.75])]
    assert asked(teacher, server, both) == [Opinion(2, 0.75)]
    assert asked(teacher, server, both, output="label") == [Opinion(9)]
    (outside,) = asked(teacher, server, names, labels=("a", "b"), output="label")
    assert isinstance(outside, Malformed)  # two names for one input


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"outputs": [{}]}',
        b'{"outputs": {"a": 1}}',
        [],
        [{"name": "probabilities", "datatype": "FP32", "data": []}],
        [{"name": "probabilities", "datatype": "FP32", "data": ["x"]}],
        [{"name": "probabilities", "datatype": "FP32", "data": [1e999]}],
        [{"name": "label", "datatype": "INT64", "data": [10]}],
        [{"name": "label", "datatype": "INT64", "data": [0.5]}],
        [{"name": "label", "datatype": "BYTES", "data": [7]}],
        [{"name": "a", "datatype": "FP32", "data": [1]}, {"name": "b", "datatype": "FP32", "data": [1]}],
    ],
)
def test_nonsense_is_malformed(teacher: Any, server: OpenAiServer, output: Any) -> None:
    (outcome,) = asked(teacher, server, output)
    assert isinstance(outcome, Malformed), outcome


def test_a_name_that_is_no_class_does_not_fit(teacher: Any, server: OpenAiServer) -> None:
    (outcome,) = asked(teacher, server, [{"name": "label", "datatype": "BYTES", "data": ["zebra"]}])
    assert isinstance(outcome, Unfit) and "zebra" in str(outcome)


def test_a_call_of_several_is_paid_once(teacher: Any, server: OpenAiServer) -> None:
    names = [{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["4", "2"]}]
    spec = {"name": "paid", "price_call": 1.0, "spend_per_day": 2.0}
    assert [one.cost for one in asked(teacher, server, names, 2, **spec)] == [1.0, 0.0]
    server.behaviours[:] = [refuses(500)]
    wrong = teacher(server.url, **spec).answer([question(row) for row in ROWS[:2]], 20.0)
    assert [(type(one), one.cost) for one in wrong] == [(Unavailable, 0.0)] * 2
    assert [one.cost for one in asked(teacher, server, names, 2, **spec)] == [1.0, 0.0]
    assert [type(one) for one in asked(teacher, server, names, 2, **spec)] == [TooDear] * 2
