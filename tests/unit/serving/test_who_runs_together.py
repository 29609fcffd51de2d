"""Which requests may share a run: nobody's answer depends on what others ask for in the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from edge_agent.serving import dataplane, slot
from edge_agent.serving.batching import Evidence
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.dataplane import DataPlane, ServingRules
from edge_agent.serving.errors import BadRequest, ModelFailed
from edgeloop.package import Package
from edgeloop.runtime import InferenceError
from edgeloop.runtime.datatypes import OIP_TO_NUMPY
from tests.doubles.door import NotingRecorder, loaded
from tests.doubles.echo_package import ECHOED, make_echo_package
from tests.unit.serving.test_dataplane import CALL, Double


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_echo_package(tmp_path_factory.mktemp("packages") / "echo")


@pytest.fixture(autouse=True)
def long_runs_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    gain = Evidence({1: 1000, 2: 1100, 4: 1200, 8: 1300})
    monkeypatch.setattr("edge_agent.serving.slot.measure", lambda *_: gain)


class Held:
    """A data plane whose only instance is held up by a first request."""

    def __init__(self, package: Package, first: Call) -> None:
        self.recorder, self.double = NotingRecorder("probabilities"), Double(loaded(package))
        self.plane = DataPlane(self.recorder, id_prefix="p", rules=ServingRules(instances=1))
        self.plane.switch(self.double.release)
        while self.double.running.acquire(blocking=False):
            pass
        self.double.gate.clear()
        self.first = self.ask(first)
        assert self.double.running.acquire(timeout=10)

    def ask(self, call: Call) -> Future[Answer]:
        answer = self.plane.infer(call)
        assert isinstance(answer, Future)
        return answer


@pytest.fixture
def held(first: Package) -> Iterator[Held]:
    held = Held(first, CALL)
    yield held
    held.double.gate.set()
    held.plane.close()


def values(**rows: int) -> dict[str, Any]:
    """Inputs of the echo, one row each; of some of them another number."""
    return {d.lower(): np.ones((rows.get(d.lower(), 1), 3), OIP_TO_NUMPY[d]) for d in ECHOED}


def test_each_gets_the_outputs_that_it_named_also_when_plans_are_forgotten(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "MOST_PLANS", 1)
    names = ("label", "probabilities", "features")
    asked = [wanted for size in (1, 2, 3) for wanted in permutations(names, size)] * 3
    waiting = [held.ask(CALL._replace(outputs=wanted)) for wanted in asked]
    held.double.gate.set()
    for wanted, future in zip(asked, waiting, strict=True):
        assert tuple(name for name, _ in future.result(10).outputs) == wanted


def test_inputs_with_different_numbers_of_rows_do_not_spoil_the_answers_of_others(echo: Package) -> None:
    held = Held(echo, Call("echo", None, "", values()))
    good, uneven, swapped = (
        held.ask(Call("echo", None, "", inputs))
        for inputs in (values(), values(fp32=2), dict(reversed(values().items())))
    )
    held.double.gate.set()
    assert {array.shape for _, array in good.result(10).outputs} == {(1, 3)}
    assert {array.shape for _, array in swapped.result(10).outputs} == {(1, 3)}
    assert dict(uneven.result(10).outputs)["fp32_again"].shape == (2, 3), "this model takes it, alone"
    assert held.plane.counters().errors == 0
    held.plane.close()


@pytest.mark.parametrize("inline_ns", [0, 10**12])
def test_a_model_that_fails_on_them_is_not_to_blame(
    echo: Package, monkeypatch: pytest.MonkeyPatch, inline_ns: int
) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", inline_ns)
    recorder, double = NotingRecorder(), Double(loaded(echo))
    plane = DataPlane(recorder, id_prefix="p")
    plane.switch(double.release)
    double.error = InferenceError("cannot broadcast 2 by 1")

    def ask(inputs: dict[str, Any]) -> Answer:
        answer = plane.infer(Call("echo", None, "", inputs))
        return answer if isinstance(answer, Answer) else answer.result(10)

    with pytest.raises(BadRequest, match="different numbers of rows, and echo failed: cannot broadcast"):
        ask(values(fp32=2))
    assert (recorder.errors, plane.counters().errors) == (0, 0)
    with pytest.raises(ModelFailed, match="cannot broadcast"):
        ask(values())
    assert (recorder.errors, plane.counters().errors) == (1, 1)
    plane.close()
