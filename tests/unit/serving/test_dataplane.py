"""The data plane over real sessions: what it answers, what it notes, and that a switch loses no request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from edge_agent.ports import LoadedRelease, ServingCounters
from edge_agent.serving import dataplane
from edge_agent.serving.batching import BatchRules
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.dataplane import DataPlane, ServingRules
from edge_agent.serving.errors import BadRequest, Busy, ModelFailed, NotFound, NotReady
from edge_agent.serving.slot import MOST_PLANS
from edgeloop.insights import drawn_rows
from edgeloop.package import Package
from edgeloop.runtime import InferenceError
from tests.doubles.door import NotingRecorder, loaded

ROW = {"x": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)}
CALL = Call("digits", None, "", ROW)
ONE_BY_ONE = ServingRules(instances=1, most_waiting=3, batches=BatchRules(max_rows=1))
OBSERVED = ("probabilities", "features")


@pytest.fixture
def recorder() -> NotingRecorder:
    return NotingRecorder(*OBSERVED)


@pytest.fixture
def plane(first: Package, recorder: NotingRecorder) -> Iterator[DataPlane]:
    plane = DataPlane(recorder, id_prefix="life1")
    plane.switch(loaded(first))
    yield plane
    plane.close()


def ask(plane: DataPlane, inputs: Any = None, *wanted: str, identity: str = "", version: str | None = None) -> Answer:
    """One answer, waited for where it has to be."""
    answer = plane.infer(Call("digits", version, identity, ROW if inputs is None else inputs, wanted))
    return answer if isinstance(answer, Answer) else answer.result(10)


def names(answer: Answer) -> list[str]:
    return [name for name, _ in answer.outputs]


class Double:
    """A session around a real one, whose runs a test can hold up, change or make fail."""

    def __init__(self, release: LoadedRelease) -> None:
        self.real = release.session
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Semaphore(0)
        self.error: Exception | None = None
        self.spoil: float | None = None
        self.closed = 0
        self.freed = threading.Event()
        self.release = LoadedRelease(release.digest, release.package, self, release.profile)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, inputs: Any, outputs: Any = None, deadline_s: float | None = None) -> list[Any]:
        self.running.release()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        found = [np.array(array) for array in self.real.run(inputs, outputs, deadline_s)]
        if self.spoil is not None:
            found[list(outputs).index("probabilities")][0, 0] = self.spoil
        return found

    def close(self) -> None:
        self.closed += 1
        self.real.close()
        self.freed.set()


# ── answers ───────────────────────────────────────────────────────────────────────────────────


def test_the_usual_outputs_are_all_but_the_features(plane: DataPlane) -> None:
    assert names(ask(plane)) == ["label", "probabilities"]
    assert [output.name for output in plane.describe("digits", None).outputs] == ["label", "probabilities"]


def test_wanted_outputs_come_in_the_order_in_which_they_were_named(plane: DataPlane) -> None:
    assert names(ask(plane, None, "features", "label")) == ["features", "label"]
    assert names(ask(plane, None, "label", "label")) == ["label"]


def test_answers_are_those_of_the_session(plane: DataPlane, first: Package) -> None:
    rows = np.random.default_rng(3).random((5, 64), dtype=np.float32)
    expected = loaded(first).session.run({"x": rows}, ["label", "probabilities"])
    for (_, got), want in zip(ask(plane, {"x": rows}).outputs, expected, strict=True):
        assert (got == want).all()


def test_ids_are_the_clients_or_new(plane: DataPlane) -> None:
    assert ask(plane, identity="mine").id == "mine"
    made = {ask(plane).id for _ in range(50)}
    assert len(made) == 50
    assert all(identity.startswith("life1-") for identity in made)


def test_a_version_may_be_named(plane: DataPlane) -> None:
    assert ask(plane, version="1").version == "1"
    for model, version in (("digits", "2"), ("other", None), ("", None), ("digits", "")):
        with pytest.raises(NotFound, match="digits, version 1, serves"):
            plane.infer(Call(model, version, "", ROW))
        with pytest.raises(NotFound):
            plane.describe(model, version)


def test_without_a_release_nothing_is_answered(first: Package) -> None:
    plane = DataPlane(None, id_prefix="p")
    with pytest.raises(NotReady, match="edge-agent status"):
        plane.infer(CALL)
    assert plane.counters() == ServingCounters(0, 0, 0, 0, 0, 0)
    plane.switch(loaded(first))
    assert ask(plane).model == "digits"
    plane.switch(None)
    assert plane.loaded is None
    plane.close()


@pytest.mark.parametrize(
    ("inputs", "wanted", "said"),
    [
        ({}, (), "input 'x' is missing; digits takes x FP32"),
        ({"y": ROW["x"]}, (), "input 'x' is missing"),
        ({**ROW, "y": ROW["x"]}, (), "there is no input 'y'"),
        ({"x": ROW["x"].astype(np.float64)}, (), "is float64; it has to be FP32"),
        ({"x": ROW["x"][:, :63]}, (), r"shape \[1, 63\]; it has to be \[-1, 64\]"),
        ({"x": ROW["x"][0]}, (), r"shape \[64\]"),
        ({"x": ROW["x"][None]}, (), r"shape \[1, 1, 64\]"),
        ({"x": ROW["x"][:0]}, (), "the batch is empty"),
        (ROW, ("nothing",), "there is no output 'nothing'; there are label, probabilities"),
        ({"x": np.full((1, 64), np.nan, np.float32)}, (), "input 'x' holds NaN"),
    ],
)
def test_what_does_not_fit_the_model_is_the_clients_fault(
    plane: DataPlane, recorder: NotingRecorder, inputs: Any, wanted: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        plane.infer(Call("digits", None, "", inputs, wanted))
    assert plane.counters() == ServingCounters(0, 0, 0, 0, 0, 0)
    assert (recorder.errors, recorder.recorded) == (0, [])


def test_names_that_clients_make_up_do_not_fill_the_memory(plane: DataPlane) -> None:
    for number in range(3 * MOST_PLANS):
        ask(plane, None, *["label"] * (number + 1))
    assert plane._models.main is not None
    assert len(plane._models.main.slot._plans) <= MOST_PLANS


# ── what is noted ─────────────────────────────────────────────────────────────────────────────


def test_observing_gets_what_it_wants_and_the_client_what_it_asked_for(
    plane: DataPlane, recorder: NotingRecorder
) -> None:
    answer = ask(plane, None, "label")
    assert names(answer) == ["label"]
    identity, inputs, outputs, latency = recorder.recorded[0]
    assert identity == answer.id
    assert (inputs == ROW["x"]).all()
    assert {name: array.shape for name, array in outputs.items()} == {"probabilities": (1, 10), "features": (1, 16)}
    assert latency > 0


def test_what_is_not_the_run_was_waiting(
    plane: DataPlane, recorder: NotingRecorder, first: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inline_ns in (10**12, 0):  # in the caller's thread; through the queue, two waiting for one instance
        monkeypatch.setattr(dataplane, "INLINE_NS", inline_ns)
        ask(plane)
    double = Double(loaded(first))
    queued = DataPlane(recorder, id_prefix="q", rules=ONE_BY_ONE)
    queued.switch(double.release)
    double.gate.clear()
    both = [queued.infer(CALL), queued.infer(CALL)]
    assert double.running.acquire(timeout=10)
    time.sleep(0.05)
    double.gate.set()
    for one in both:
        assert not isinstance(one, Answer) and one.result(10)
    queued.close()
    assert all(latency >= run > 0 for _, latency, run in recorder.measured) and len(recorder.measured) == 4
    # The second one waited for the whole of the first one's run.
    waited = sorted(latency - run for _, latency, run in recorder.measured)[-1]
    assert waited >= 40_000_000


def test_the_parameter_that_the_policy_names_says_the_segment(
    first: Package, recorder: NotingRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double(loaded(first))
    plane = DataPlane(recorder, id_prefix="p")
    plane.switch(double.release)
    call = CALL._replace(parameters={"camera": "north", "line": 4})
    for recorder.segment_field, inline_ns in ((None, 10**12), ("camera", 10**12), ("camera", 0), ("line", 0)):
        monkeypatch.setattr(dataplane, "INLINE_NS", inline_ns)
        found = plane.infer(call)
        assert isinstance(found, Answer) or found.result(10)
    assert [segment for segment, _, _ in recorder.measured] == ["", "north", "north", "4"]
    double.error = InferenceError("no")
    with pytest.raises(ModelFailed):
        plane.infer(call).result(10)  # type: ignore[union-attr]
    assert recorder.failed == ["4"]
    plane.close()


def test_what_is_observed_by_its_scores_alone_is_run_without_the_features(
    first: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thinning(NotingRecorder):
        def in_full(self) -> bool:
            return False

        def record_scores(
            self, loaded: LoadedRelease, prediction_id: str, scores: Any, segment: str, latency_ns: int, run_ns: int
        ) -> None:
            self.recorded.append((prediction_id, None, {"probabilities": scores}, latency_ns))

    recorder, double = Thinning(*OBSERVED), Double(loaded(first))
    plane = DataPlane(recorder, id_prefix="p")
    plane.switch(double.release)
    monkeypatch.setattr(dataplane, "INLINE_NS", 10**9)
    asked: list[list[str]] = []
    run = double.run
    monkeypatch.setattr(
        double, "run", lambda inputs, names, deadline: asked.append(names) or run(inputs, names, deadline)
    )
    assert names(ask(plane, None, "label")) == ["label"]
    assert asked == [["label", "probabilities"]]
    assert recorder.recorded[0][2]["probabilities"].shape == (1, 10)
    nothing = Thinning()
    plane = DataPlane(nothing, id_prefix="p")
    plane.switch(loaded(first))
    assert names(ask(plane, None, "label")) == ["label"], "nor does a release suffer that cannot be observed"
    assert nothing.recorded[0][2] == {}
    plane.close()


def test_rows_are_counted(plane: DataPlane) -> None:
    ask(plane, {"x": np.zeros((7, 64), np.float32)})
    ask(plane)
    counters = plane.counters()
    assert (counters.predictions, counters.errors, counters.nonfinite, counters.runs) == (8, 0, 0, 2)
    assert counters.latency_ns > 0


def test_a_failing_model_is_counted_and_said(first: Package, recorder: NotingRecorder) -> None:
    double = Double(loaded(first))
    plane = DataPlane(recorder, id_prefix="p")
    plane.switch(double.release)
    double.error = InferenceError("the node exploded")
    with pytest.raises(ModelFailed, match="digits failed on this input: the node exploded"):
        ask(plane)
    assert plane.counters() == ServingCounters(0, 1, 0, 0, 0, 0)
    assert recorder.errors == 1
    plane.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_no_answer(first: Package, recorder: NotingRecorder, bad: float) -> None:
    double = Double(loaded(first))
    plane = DataPlane(recorder, id_prefix="p")
    plane.switch(double.release)
    double.spoil = bad
    with pytest.raises(ModelFailed, match="output probabilities is not finite"):
        ask(plane, {"x": np.zeros((3, 64), np.float32)})
    assert plane.counters() == ServingCounters(0, 1, 3, 0, 0, 0)
    assert (recorder.errors, recorder.recorded) == (1, [])
    double.spoil = None
    assert ask(plane).outputs  # and a large finite number is not taken for one
    double.spoil = 3e38
    assert ask(plane).outputs
    plane.close()


def test_without_a_recorder_nothing_is_noted(first: Package) -> None:
    plane = DataPlane(None, id_prefix="p")
    plane.switch(loaded(first))
    assert names(ask(plane)) == ["label", "probabilities"]
    plane.close()


# ── long runs ─────────────────────────────────────────────────────────────────────────────────


def test_long_runs_go_to_a_thread_and_short_ones_do_not(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(plane.infer(CALL), Answer)
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)

    async def run() -> Answer:
        answer = plane.infer(CALL)
        assert not isinstance(answer, Answer)
        return await asyncio.wrap_future(answer)

    assert names(asyncio.run(run())) == ["label", "probabilities"]


def test_too_many_long_runs_are_refused(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    double = Double(loaded(first))
    plane = DataPlane(None, id_prefix="p", rules=ONE_BY_ONE)
    plane.switch(double.release)
    double.gate.clear()

    async def run() -> None:
        waiting = [plane.infer(CALL) for _ in range(4)]
        with pytest.raises(Busy, match="4 requests wait"):
            plane.infer(CALL)
        double.gate.set()
        for answer in waiting:
            assert not isinstance(answer, Answer)
            assert (await asyncio.wrap_future(answer)).model == "digits"
        later = plane.infer(CALL)
        assert not isinstance(later, Answer)
        await asyncio.wrap_future(later)

    asyncio.run(run())
    assert plane.counters().predictions == 5
    plane.close()
    assert double.closed == 1


def test_closing_waits_for_a_run_but_not_for_ever(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    double = Double(loaded(first))
    plane = DataPlane(None, id_prefix="p", rules=ONE_BY_ONE)
    plane.switch(double.release)
    double.gate.clear()
    while double.running.acquire(blocking=False):
        pass

    async def run() -> None:
        running, waiting = (plane.infer(CALL) for _ in range(2))
        assert double.running.acquire(timeout=10)
        start = time.monotonic()
        await asyncio.to_thread(plane.close, 0.2)
        assert 0.1 < time.monotonic() - start < 5
        assert double.closed == 0, "a run is still under way"
        double.gate.set()
        assert not isinstance(running, Answer) and not isinstance(waiting, Answer)
        assert (await asyncio.wrap_future(running)).model == "digits"
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wrap_future(waiting)

    asyncio.run(run())
    assert double.freed.wait(10)
    assert double.closed == 1


# ── switching ─────────────────────────────────────────────────────────────────────────────────


def test_a_request_ends_on_the_release_that_it_began_on(
    first: Package, second: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    old, new = Double(loaded(first)), Double(loaded(second))
    plane = DataPlane(None, id_prefix="p")
    plane.switch(old.release)
    old.gate.clear()
    while old.running.acquire(blocking=False):
        pass

    async def run() -> None:
        slow = plane.infer(CALL)
        assert old.running.acquire(timeout=10)
        plane.switch(new.release)
        assert plane.loaded is new.release
        quick = plane.infer(CALL)
        assert not isinstance(quick, Answer) and not isinstance(slow, Answer)
        assert (await asyncio.wrap_future(quick)).version == "2"
        assert old.closed == 0
        old.gate.set()
        assert (await asyncio.wrap_future(slow)).version == "1"

    asyncio.run(run())
    assert old.freed.wait(10), "the session is freed after its last answer has gone out"
    assert (old.closed, new.closed) == (1, 0)
    assert plane.counters().predictions == 1, "counted since the switch"
    plane.close()
    assert new.closed == 1


def test_the_same_release_again_keeps_its_session(first: Package) -> None:
    double = Double(loaded(first))
    plane = DataPlane(None, id_prefix="p")
    plane.switch(double.release)
    plane.switch(double.release)
    assert double.closed == 0
    assert ask(plane).version == "1"
    plane.close()
    assert double.closed == 1


def test_the_same_release_again_leaves_no_thread_behind(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    double = Double(loaded(first))
    plane = DataPlane(None, id_prefix="p")
    plane.switch(double.release)
    assert ask(plane).version == "1"
    assert plane._models.main is not None
    old = plane._models.main.scheduler
    plane.switch(double.release)
    until = time.monotonic() + 10
    while old._threads and time.monotonic() < until:
        time.sleep(0.01)
    assert old._threads == 0
    assert ask(plane).version == "1"
    plane.close()


def test_a_release_that_cannot_be_timed_does_not_replace_the_one_that_serves(plane: DataPlane, first: Package) -> None:
    broken = Double(loaded(first))
    broken.error = InferenceError("no")
    with pytest.raises(InferenceError):
        plane.switch(broken.release)
    assert ask(plane).version == "1"


@pytest.mark.parametrize("inline_ns", [0, 10**9])
def test_no_request_is_lost_in_a_hundred_switches(
    first: Package, second: Package, monkeypatch: pytest.MonkeyPatch, inline_ns: int
) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", inline_ns)
    plane = DataPlane(None, id_prefix="p")
    plane.switch(loaded(first))
    stop = threading.Event()

    async def load() -> tuple[int, set[str]]:
        answered, versions = 0, set()
        while not stop.is_set():
            answer = plane.infer(CALL)
            versions.add((answer if isinstance(answer, Answer) else await asyncio.wrap_future(answer)).version)
            answered += 1
            await asyncio.sleep(0)
        return answered, versions

    async def clients() -> list[tuple[int, set[str]]]:
        return await asyncio.gather(*(load() for _ in range(4)))

    def switch() -> None:
        for number in range(100):
            plane.switch(loaded((first, second)[number % 2]))
        stop.set()

    switching = threading.Thread(target=switch)
    switching.start()
    results = asyncio.run(clients())
    switching.join()
    assert min(answered for answered, _ in results) > 0
    assert set.union(*(versions for _, versions in results)) == {"1", "2"}
    plane.close()


def test_an_answer_that_was_drawn_says_so(plane: DataPlane, recorder: NotingRecorder) -> None:
    assert ask(plane).audit == ()
    recorder.audit_share = 1.0
    assert ask(plane).audit == tuple(range(len(ask(plane).outputs[0][1])))
    recorder.audit_share = 0.3
    drawn = [ask(plane, identity=f"p{number}").audit for number in range(40)]
    assert drawn == [drawn_rows(f"p{number}", 1, 0.3) for number in range(40)]


class NotingEscalating:
    """Draws every row, or none; a test says when the better answer comes."""

    def __init__(self) -> None:
        self.on, self.waits, self.drawn, self.sent = True, False, True, 0
        self.seen: list[dict[str, Any]] = []
        self.rows: tuple[int, ...] = ()
        self.pending: list[tuple[Answer, Future[Answer]]] = []
        self.held = False

    def draws(self) -> bool:
        return not self.held

    def draw(
        self, loaded: Any, identity: str, inputs: Any, outputs: Any, places: Any, segment: str, timeout_s: float
    ) -> Any:
        self.seen.append({name: outputs[place] for name, place in places.items()} | {"timeout_s": timeout_s})
        self.rows = tuple(range(len(inputs["x"])))
        return self if self.drawn else None

    def send(self) -> None:
        self.sent += 1

    def better(self, answer: Answer, future: Future[Answer] | None = None) -> Future[Answer]:
        future = future or Future()
        self.pending.append((answer, future))
        return future


@pytest.mark.parametrize("queued", [False, True])
def test_hard_answers_are_given_now_and_sent(
    plane: DataPlane, recorder: NotingRecorder, queued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", -1 if queued else 1 << 60)
    assert ask(plane).parameters == {}
    escalating = NotingEscalating()
    plane.escalate(escalating)
    recorder.full = False
    answer = ask(plane, {"x": np.repeat(ROW["x"], 2, axis=0)})
    assert answer.parameters == {"escalated": True, "escalated_rows": "0,1"} and escalating.sent == 1
    assert names(answer) == ["label", "probabilities"]
    (seen,) = escalating.seen
    assert seen["features"].shape[0] == 2, "the features of an answer that is observed by its scores alone too"
    assert 0 < seen["timeout_s"] <= 30
    escalating.drawn = False
    assert ask(plane).parameters == {}
    escalating.on = False
    assert ask(plane).parameters == {} and len(escalating.seen) == 2


def test_while_nothing_can_leave_no_features_are_made_for_it(
    plane: DataPlane, recorder: NotingRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 1 << 60)
    ask(plane)
    escalating = NotingEscalating()
    plane.escalate(escalating)
    recorder.full, escalating.held = False, True
    assert ask(plane).parameters == {} and not escalating.seen
    recorder.full = True
    assert ask(plane).parameters == {"escalated": True}, "a moment later something may leave"


@pytest.mark.parametrize("queued", [False, True])
def test_a_client_waits_for_the_better_answer(plane: DataPlane, queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", -1 if queued else 1 << 60)
    escalating = NotingEscalating()
    escalating.waits = True
    plane.escalate(escalating)
    future = plane.infer(CALL)
    assert isinstance(future, Future)
    until = time.monotonic() + 10
    while not escalating.pending and time.monotonic() < until:
        time.sleep(0.001)
    ((own, asked),) = escalating.pending
    assert not future.done() and own.escalated == (0,)
    asked.set_result(own._replace(teachers={0: "big"}, pending=None))
    assert future.result(10).parameters == {"escalated": True, "teacher": "big"}
    plane.close()


def test_other_models_are_never_escalated(first: Package, second: Package, recorder: NotingRecorder) -> None:
    plane = DataPlane(recorder, id_prefix="p")
    escalating = NotingEscalating()
    plane.escalate(escalating)
    plane.add(loaded(second))
    assert ask(plane, version="2").parameters == {} and escalating.seen == []
    plane.close()


class NotingSampling:
    """Notes what is offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[Any, ...]] = []

    def offer(self, *what: Any) -> None:
        self.offered.append(what)


def test_what_the_channels_release_answers_is_offered_for_as_long_as_somebody_keeps_samples(
    plane: DataPlane, second: Package
) -> None:
    sampling = NotingSampling()
    ask(plane)
    plane.sample(sampling)
    answer = ask(plane, identity="p1")
    plane.add(loaded(second))
    ask(plane, version="2")
    plane.sample(None)
    ask(plane)
    assert len(sampling.offered) == 1, "models of the device's own repository are nobody's business"
    release, identity, inputs, lent, outputs, places, segment = sampling.offered[0]
    assert (release.digest, identity, lent, segment) == (plane.loaded.digest, "p1", False, "")  # type: ignore[union-attr]
    assert inputs is ROW and np.array_equal(outputs[places["probabilities"]], dict(answer.outputs)["probabilities"])
