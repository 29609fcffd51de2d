"""A flow over a real data plane: what it waits for, what it gives up, and who has a result before whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from edge_agent.flows import flow as flow_module
from edge_agent.flows.flow import Flow, FlowSettings
from edge_agent.flows.ports import Ended, Gone, Item, Missing, Reading, Rejected, Result, Stopped, Trouble
from edge_agent.serving.calls import SOURCE_PRIORITY, Answer, Call, Described
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import Busy, DeadlinePassed, ModelFailed, NotReady
from edgeloop.package import Package
from tests.doubles.door import loaded
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.hub_process import wait_for

ROWS = np.random.default_rng(3).random((8, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder / "1", version="1"), make_package(folder / "2", version="2", seed=1)


class Script:
    """A source that gives what a test tells it to; an exception in place of an item is raised."""

    def __init__(self, *script: Any, live: bool = False, declared: bool = False) -> None:
        self.live, self._script, self._declared = live, list(script), declared
        self.taken: list[str] = []
        self.finished: list[tuple[str, str]] = []
        self.opened = self.closed = 0
        self.trouble = ""
        self.log: list[str] = []

    def open(self) -> None:
        self.opened += 1

    def next(self, timeout_s: float) -> Item | None:
        if not self._script:
            raise Ended("the script is over")
        found = self._script.pop(0)
        if isinstance(found, Exception):
            raise found
        self.taken.append(str(found))
        return Item(str(found), {"row": str(found)}, found)

    def read(self, item: Item, described: Described) -> Reading:
        if isinstance(item.body, int):
            return Reading({described.inputs[0].name: ROWS[item.body : item.body + 1]}, declared=self._declared)
        if isinstance(item.body, np.ndarray):
            return Reading({described.inputs[0].name: item.body}, declared=self._declared)
        raise item.body

    def done(self, item: Item) -> None:
        self.finished.append((item.key, "done"))
        self.log.append("done")

    def reject(self, item: Item, reason: str) -> None:
        self.finished.append((item.key, reason))

    def close(self) -> None:
        self.closed += 1

    def counts(self) -> dict[str, int]:
        return {"dropped": 0}


class Notes:
    """A sink that keeps what it gets; it can be full."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.name, self.trouble = "notes", ""
        self.results: list[Result] = []
        self.full = threading.Event()
        self._log = [] if log is None else log

    def start(self) -> None:
        pass

    def put(self, result: Result, stopping: threading.Event) -> None:
        while self.full.is_set():
            if stopping.wait(0.01):
                raise Stopped("full")
        self.results.append(result)
        self._log.append("put")

    def stop(self, timeout_s: float) -> None:
        pass

    def counts(self) -> dict[str, int]:
        return {}

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(result.document) for result in self.results]


class Reluctant:
    """A real plane that answers only after some errors; it notes the calls."""

    def __init__(self, plane: DataPlane, *errors: Exception, later: bool = False) -> None:
        self._plane, self._errors, self._later = plane, list(errors), later
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)

    def infer(self, call: Call) -> Answer | Future[Answer]:
        self.calls.append(call)
        if not self._errors:
            return self._plane.infer(call)
        error = self._errors.pop(0)
        if not self._later:
            raise error
        future: Future[Answer] = Future()
        future.set_exception(error)
        return future


@pytest.fixture
def plane(packages: tuple[Package, Package]) -> Iterator[DataPlane]:
    plane = DataPlane(None, id_prefix="life")
    plane.switch(loaded(packages[0]))
    yield plane
    plane.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "PLANE_BACKOFF_S", (0.001, 0.01))
    monkeypatch.setattr(flow_module, "SOURCE_BACKOFF_S", (0.001, 0.01))


def run(source: Script, plane: Any, *sinks: Notes, model: str | None = None) -> Flow:
    """Run a flow to its source's end."""
    flow = Flow(FlowSettings("script", model), source, sinks, plane)
    flow.start()
    flow.join(30)
    return flow


def test_every_item_is_answered_and_its_result_says_what_it_was(plane: DataPlane) -> None:
    source, notes = Script(0, 1, 2), Notes()
    flow = run(source, plane, notes)
    expected = answers(make_model(0), ROWS[:3])
    for number, document in enumerate(notes.documents):
        assert document["model_name"] == "digits" and document["model_version"] == "1"
        assert document["source"] == "script" and document["item"] == {"row": str(number)}
        assert document["state"] == str(expected["label"][number])
        assert document["confidence"] == pytest.approx(expected["probabilities"][number].max(), abs=1e-4)
        outputs = {output["name"]: output["data"] for output in document["outputs"]}
        assert np.allclose(outputs["probabilities"], expected["probabilities"][number], atol=1e-5)
        assert document["id"] == notes.results[number].id != ""
    status = flow.status()
    assert (status["state"], status["counts"]["taken"], status["counts"]["answered"]) == ("ended", 3, 3)
    assert source.finished == [("0", "done"), ("1", "done"), ("2", "done")] and source.closed == 1


def test_items_have_the_parameters_of_their_source_and_their_own(plane: DataPlane) -> None:
    class Telling(Script):
        def read(self, item: Item, described: Described) -> Reading:
            own = {"line": "2", "camera": "door"} if item.key == "1" else {}
            return super().read(item, described)._replace(parameters=own)

    asked = Reluctant(plane)
    settings = FlowSettings("script", parameters={"camera": "north"})
    flow = Flow(settings, Telling(0, 1), [Notes()], asked)  # type: ignore[arg-type]
    flow.start()
    flow.join(30)
    assert [call.parameters for call in asked.calls] == [{"camera": "north"}, {"camera": "door", "line": "2"}]


def test_sinks_have_a_result_before_the_source_is_told(plane: DataPlane) -> None:
    source = Script(0, 1)
    run(source, plane, Notes(source.log), Notes(source.log))
    assert source.log == ["put", "put", "done"] * 2


def test_callers_come_first(plane: DataPlane) -> None:
    reluctant = Reluctant(plane)
    run(Script(0), reluctant, Notes())
    assert reluctant.calls[0].priority == SOURCE_PRIORITY


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("error", [Busy("full"), NotReady("none yet"), DeadlinePassed("late"), ModelFailed("once")])
def test_what_passes_is_waited_for(plane: DataPlane, error: Exception, later: bool) -> None:
    notes = Notes()
    flow = run(Script(0, 1), Reluctant(plane, error, error, later=later), notes)
    assert len(notes.results) == 2
    assert flow.status()["counts"]["rejected"] == 0 and flow.status()["counts"]["waits"] == 2


def test_an_item_that_the_model_always_fails_on_is_rejected_and_the_next_one_answered(plane: DataPlane) -> None:
    source, notes = Script(0, 1), Notes()
    flow = run(source, Reluctant(plane, *[ModelFailed("it hurts")] * flow_module.MOST_FAILURES), notes)
    assert source.finished[0][0] == "0" and "it hurts" in source.finished[0][1]
    assert source.finished[1] == ("1", "done") and len(notes.results) == 1
    assert flow.status()["counts"]["rejected"] == 1


def test_a_frame_is_dropped_rather_than_tried_again(plane: DataPlane) -> None:
    source, notes = Script(0, 1, live=True), Notes()
    flow = run(source, Reluctant(plane, Busy("full")), notes)
    counts = flow.status()["counts"]
    assert (counts["taken"], counts["dropped"], counts["answered"]) == (2, 1, 1)
    assert [document["item"] for document in notes.documents] == [{"row": "1"}]


def test_what_cannot_be_read_is_rejected_whatever_the_reason(plane: DataPlane) -> None:
    notes = Notes()
    items = [Rejected("no picture"), ZeroDivisionError("a library's fault"), MemoryError("too large"), Gone("away"), 1]

    class Bodies(Script):
        def next(self, timeout_s: float) -> Item | None:
            if not items:
                raise Ended("over")
            body = items.pop(0)
            return Item(repr(body), {}, body)

    source = Bodies()
    flow = run(source, plane, notes)
    reasons = [reason for _, reason in source.finished]
    assert "no picture" in reasons[0] and "a library's fault" in reasons[1] and "too large" in reasons[2]
    assert reasons[3] == "done" and len(notes.results) == 1
    counts = flow.status()["counts"]
    assert (counts["taken"], counts["rejected"], counts["gone"], counts["answered"]) == (5, 3, 1, 1)


def test_an_item_of_another_shape_is_rejected(plane: DataPlane) -> None:
    source = Script(np.zeros((1, 63), np.float32), 0)
    flow = run(source, plane, Notes())
    assert "63" in source.finished[0][1] and source.finished[1][1] == "done"
    assert "63" in flow.status()["last_rejected"]


def test_settings_that_do_not_fit_the_model_reject_nothing_and_wait_for_one_that_fits(plane: DataPlane) -> None:
    source, notes = Script(np.zeros((1, 63), np.float32), declared=True), Notes()
    flow = Flow(FlowSettings("script"), source, [notes], plane)
    flow.start()
    wait_for(lambda: "mend the settings" in flow.status()["state"], 20, "its state")
    assert source.finished == [] and flow.status()["counts"]["rejected"] == 0
    flow.ask_to_stop()
    flow.join(10)
    assert source.finished == [] and flow.status()["state"] == "stopped"


def test_a_declared_tensor_that_fits_and_is_still_refused_is_the_items_fault(plane: DataPlane) -> None:
    source = Script(np.full((1, 64), np.nan, np.float32), declared=True)
    run(source, plane, Notes())
    assert "NaN" in source.finished[0][1]


def test_nothing_serves_yet_and_then_a_release_does_and_then_another(packages: tuple[Package, Package]) -> None:
    plane = DataPlane(None, id_prefix="life")
    source, notes = Script(*range(8)), Notes()
    flow = Flow(FlowSettings("script"), source, [notes], plane)
    flow.start()
    wait_for(lambda: "waiting" in flow.status()["state"], 20, "its waiting")
    notes.full.set()
    plane.switch(loaded(packages[0]))
    wait_for(lambda: flow.status()["state"] == "listening", 20, "the first answer")
    plane.switch(loaded(packages[1]))
    notes.full.clear()
    flow.join(30)
    versions = [document["model_version"] for document in notes.documents]
    assert len(versions) == 8 and versions[0] == "1" and versions[-1] == "2"
    assert flow.status()["counts"]["rejected"] == 0
    plane.close()


def test_a_named_model_that_is_not_there_is_waited_for(plane: DataPlane) -> None:
    flow = Flow(FlowSettings("script", "faces"), Script(0), [Notes()], plane)
    flow.start()
    wait_for(lambda: "no model faces" in flow.status()["state"], 20, "its state")
    flow.ask_to_stop()
    flow.join(10)
    assert flow.status()["state"] == "stopped"


@pytest.mark.parametrize("error", [Trouble("unplugged"), RuntimeError("unforeseen")])
def test_a_source_in_trouble_is_opened_anew(plane: DataPlane, error: Exception) -> None:
    source, notes = Script(0, error, 1, error, 2), Notes()
    flow = run(source, plane, notes)
    assert len(notes.results) == 3 and source.opened == source.closed == 3
    assert flow.status()["counts"]["reopened"] == 2


def test_a_missing_library_ends_the_source_with_what_to_install(plane: DataPlane) -> None:
    flow = run(Script(Missing("pip install 'edgeloop[camera]'")), plane, Notes())
    assert "edgeloop[camera]" in flow.status()["state"]


def test_a_sink_that_is_full_holds_the_source_up_and_a_stop_leaves_the_item_with_it(plane: DataPlane) -> None:
    source, notes = Script(0, 1), Notes()
    notes.full.set()
    flow = Flow(FlowSettings("script"), source, [notes], plane)
    flow.start()
    wait_for(lambda: source.taken == ["0"], 20, "the first item")
    flow.ask_to_stop()
    flow.join(10)
    assert source.taken == ["0"] and source.finished == [] and notes.results == []
