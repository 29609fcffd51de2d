"""Longer runs: batches, priorities, deadlines, clients that go away; over real sessions that a test holds up."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving import dataplane
from edge_agent.serving.batching import BatchRules, Evidence, largest_of, measure
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.dataplane import DataPlane, ServingRules
from edge_agent.serving.errors import BadRequest, Busy, DeadlinePassed, NotFound
from edge_agent.serving.models import version_order
from edge_agent.serving.repository import Repository
from edgeloop.package import Package
from edgeloop.runtime import InferenceError
from tests.doubles.door import NotingRecorder, load_folder, loaded
from tests.doubles.packages import make_package
from tests.unit.serving.test_dataplane import Double


def rows(*values: float) -> dict[str, Any]:
    return {"x": np.stack([np.full(64, value, np.float32) for value in values])}


def call(*values: float, priority: int = 0, timeout_s: float = 0.0, outputs: tuple[str, ...] = ()) -> Call:
    return Call("digits", None, "", rows(*values), outputs, priority, timeout_s)


class Held:
    """A data plane with one instance whose first run is held up, so that what comes after it has to wait."""

    def __init__(self, package: Package, **rules: Any) -> None:
        self.recorder = NotingRecorder("probabilities")
        self.double = Double(loaded(package))
        self.plane = DataPlane(self.recorder, id_prefix="p", rules=ServingRules(instances=1, **rules))
        self.plane.switch(self.double.release)
        while self.double.running.acquire(blocking=False):
            pass
        self.sizes: list[int] = []
        run = self.double.run

        def noted(inputs: Any, outputs: Any = None, deadline_s: float | None = None) -> list[Any]:
            self.sizes.append(len(inputs["x"]))
            return run(inputs, outputs, deadline_s)

        self.double.run = noted  # type: ignore[method-assign]
        self.double.gate.clear()
        self.first = self.ask(call(0.5))
        assert self.double.running.acquire(timeout=10)

    def ask(self, asked: Call) -> Future[Answer]:
        answer = self.plane.infer(asked)
        assert isinstance(answer, Future)
        return answer

    def go_on(self) -> None:
        self.double.gate.set()
        self.first.result(10)


@pytest.fixture(autouse=True)
def everything_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)


@pytest.fixture
def batching(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device on which batches were measured to help."""
    gain = Evidence({1: 1000, 2: 1100, 4: 1200, 8: 1300})
    monkeypatch.setattr("edge_agent.serving.slot.measure", lambda *_: gain)


# ── batches ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("batching")
def test_requests_that_wait_run_together_and_each_gets_its_own_rows(first: Package) -> None:
    held = Held(first)
    asked = [(0.1,), (0.2, 0.3), (0.4,)]
    waiting = [held.ask(call(*values)) for values in asked]
    held.go_on()
    session = loaded(first).session
    for values, future in zip(asked, waiting, strict=True):
        (expected,) = session.run(rows(*values), ["probabilities"])
        got = dict(future.result(10).outputs)["probabilities"]
        assert got.shape == expected.shape
        assert np.allclose(got, expected, atol=1e-6)
    assert held.sizes == [1, 4]
    assert [len(recorded[1]) for recorded in held.recorder.recorded] == [1, 1, 2, 1]
    assert len({future.result().id for future in waiting}) == 3
    (stats,) = held.plane.statistics("digits", None)
    assert (stats["inference_count"], stats["execution_count"]) == (5, 2)
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in stats["batch_stats"]] == [(1, 1), (4, 1)]
    assert stats["inference_stats"]["success"]["count"] == stats["inference_stats"]["queue"]["count"] == 4
    held.plane.close()


@pytest.mark.usefixtures("batching")
def test_only_requests_for_the_same_outputs_run_together(first: Package) -> None:
    held = Held(first)
    waiting = [held.ask(call(0.1, outputs=(name,))) for name in ("label", "probabilities", "label")]
    held.go_on()
    assert [[name for name, _ in future.result(10).outputs] for future in waiting] == [
        ["label"],
        ["probabilities"],
        ["label"],
    ]
    assert held.sizes == [1, 2, 1]
    held.plane.close()


@pytest.mark.usefixtures("batching")
def test_one_bad_request_does_not_cost_the_others_of_its_batch(first: Package) -> None:
    held = Held(first)
    good, bad = held.ask(call(0.1)), held.ask(call(float("nan")))
    held.go_on()
    assert good.result(10).model == "digits"
    with pytest.raises(BadRequest, match="holds NaN"):
        bad.result(10)
    assert held.sizes == [1, 2]
    assert held.plane.counters().errors == 0
    held.plane.close()


@pytest.mark.usefixtures("batching")
def test_a_batch_is_waited_for_and_not_for_ever(first: Package) -> None:
    held = Held(first, batches=BatchRules(max_rows=4, delay_s=0.2))
    held.go_on()
    start = time.monotonic()
    alone = held.ask(call(0.1))
    alone.result(10)
    assert time.monotonic() - start > 0.15, "it waited for others"
    four = [held.ask(call(0.1)) for _ in range(4)]
    for future in four:
        future.result(10)
    assert held.sizes == [1, 1, 4]
    held.plane.close()


def test_no_batches_where_they_were_not_measured_to_help(first: Package) -> None:
    held = Held(first, batches=BatchRules(max_rows=1))
    waiting = [held.ask(call(0.1)) for _ in range(3)]
    held.go_on()
    for future in waiting:
        future.result(10)
    assert held.sizes == [1, 1, 1, 1]
    held.plane.close()


def test_a_real_model_is_measured_and_its_rows_compared(first: Package) -> None:
    release = loaded(first)
    evidence = measure(release.session, release.package.golden().inputs, 32)
    assert evidence.why_not == ""
    assert set(evidence.run_ns) >= {1, 2, 4}
    assert min(evidence.run_ns.values()) > 0


def test_a_model_that_looks_across_its_batch_gets_no_batches(first: Package) -> None:
    release = loaded(first)

    class Mixing:
        inputs, outputs, provider = release.session.inputs, release.session.outputs, release.session.provider

        def run(self, inputs: Any, outputs: Any, deadline_s: Any) -> list[Any]:
            found = [np.array(array) for array in release.session.run(inputs, outputs, deadline_s)]
            return [a + a.mean() if a.dtype.kind == "f" and len(a) > 1 else a for a in found]

        def shrink(self, inputs: Any) -> None:
            raise AssertionError("nothing larger was run")

    evidence = measure(Mixing(), release.package.golden().inputs, 32)  # type: ignore[arg-type]
    assert "depends on the other rows" in evidence.why_not
    assert evidence.best_rows(BatchRules()) == 1


def test_a_batch_has_to_gain() -> None:
    assert Evidence({1: 100, 2: 200, 4: 400}).best_rows(BatchRules()) == 1
    assert Evidence({1: 100, 2: 110, 4: 400}).best_rows(BatchRules()) == 2
    assert Evidence({1: 100, 2: 110, 4: 120}).best_rows(BatchRules(max_rows=64)) == 64
    assert Evidence({1: 100, 2: 110}, "no").best_rows(BatchRules()) == 1


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
    st.integers(1, 16),
    st.sets(st.integers(1, 20)),
    st.booleans(),
    st.sets(st.integers(1, 16)),
)
def test_what_is_taken_fits_and_nothing_waits_for_ever(
    waiting: list[int], most: int, preferred: set[int], waited: bool, sizes: set[int]
) -> None:
    count = largest_of(waiting, most, sorted(preferred), waited=waited, sizes=sorted(sizes))
    assert count <= 1 or not sizes or sum(waiting[:count]) in sizes
    assert 0 <= count <= len(waiting)
    assert count <= 1 or sum(waiting[:count]) <= most
    if waited:
        assert count >= 1
    if count == 0:
        assert sum(waiting) < most, "a full batch does not wait"


def test_a_provider_that_prepares_for_each_size_gets_measured_sizes_alone() -> None:
    evidence = Evidence({1: 100, 2: 110, 4: 120, 8: 900}, prepares=True)
    assert evidence.best_rows(BatchRules()) == 4
    assert evidence.sizes() == (1, 2, 4)
    assert largest_of([1, 1, 1], 4, (), waited=True, sizes=(1, 2, 4)) == 2
    assert largest_of([1] * 9, 4, (), waited=True, sizes=(1, 2, 4)) == 4
    assert largest_of([3, 1], 4, (), waited=True, sizes=(1, 2, 4)) == 2
    assert largest_of([3, 3], 4, (), waited=True, sizes=(1, 2, 4)) == 1
    assert largest_of([1, 1], 4, (), waited=False, sizes=(1, 2, 4)) == 0


def test_the_first_run_of_a_size_is_not_what_it_takes(first: Package) -> None:
    release = loaded(first)
    seen: set[int] = set()

    class Slow:
        inputs, outputs, provider = release.session.inputs, release.session.outputs, "CUDAExecutionProvider"

        def run(self, inputs: Any, outputs: Any, deadline_s: Any) -> list[Any]:
            rows = len(inputs["x"])
            if rows not in seen:
                seen.add(rows)
                time.sleep(0.2)
            return release.session.run(inputs, outputs, deadline_s)

        def shrink(self, inputs: Any) -> None:
            assert len(inputs["x"]) == 1

    evidence = measure(Slow(), release.package.golden().inputs, 8)  # type: ignore[arg-type]
    assert evidence.prepares
    assert set(evidence.run_ns) == {1, 2, 4, 8}
    assert max(evidence.run_ns.values()) < 200_000_000


@pytest.mark.parametrize("max_rows", [1, 8])
def test_a_provider_that_forgets_the_sizes_before_gets_one_size_for_all_runs(first: Package, max_rows: int) -> None:
    release = loaded(first)
    session = release.session
    golden = {"x": np.arange(20 * 64, dtype=np.float32).reshape(20, 64) / 1e4}
    expected = session.run(golden)
    seen = [0]
    # As CUDA's convolutions: whenever the size changes, whatever was run before, all is planned anew.
    really = session._session._sess.run

    class Forgetful:
        def run(self, names: Any, inputs: Any, options: Any) -> list[Any]:
            if seen[-1] != len(inputs["x"]):
                seen.append(len(inputs["x"]))
                time.sleep(0.05)
            time.sleep(0.002)  # as good as alike for one row and eight
            return list(really(names, inputs, options))

    session._session = SimpleNamespace(_sess=Forgetful())
    session._run, session.provider = session._session._sess.run, "CUDAExecutionProvider"
    evidence = measure(session, golden, max_rows)
    assert evidence.block == max_rows == evidence.best_rows(BatchRules(max_rows))
    assert evidence.sizes() == () and bool(evidence.why_not) == (max_rows == 1)
    del seen[:-1]
    assert seen == [max_rows], "it is warm for the size that all runs have"
    for rows in (1, 3, 8, 9, 20):
        found = session.run({"x": golden["x"][:rows]})
        assert all(np.allclose(a, b[:rows], atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert seen == [max_rows]
    session.close()


def test_larger_batches_are_not_tried_where_small_ones_bring_nothing(first: Package) -> None:
    release = loaded(first)
    sizes: list[int] = []

    class Linear:
        inputs, outputs, provider = release.session.inputs, release.session.outputs, release.session.provider

        def run(self, inputs: Any, outputs: Any, deadline_s: Any) -> list[Any]:
            sizes.append(len(inputs["x"]))
            time.sleep(0.01 * sizes[-1])  # more than what a busy machine adds to a call
            return release.session.run(inputs, outputs, deadline_s)

        def shrink(self, inputs: Any) -> None:
            sizes.append(0)

    evidence = measure(Linear(), {"x": release.package.golden().inputs["x"][:4]}, 32)  # type: ignore[arg-type]
    assert evidence.best_rows(BatchRules()) == 1
    assert max(sizes) == 4
    assert sizes[-1] == 0, "what the batches took is given back"


@pytest.mark.usefixtures("batching")
def test_what_waits_is_spread_over_instances_that_are_free(first: Package) -> None:
    held = Held(first)
    waiting = [held.ask(call(0.1)) for _ in range(4)]
    held.plane._models.main.scheduler.instances = 2  # type: ignore[union-attr]  # and the second has not begun to work
    held.go_on()
    for future in waiting:
        future.result(10)
    assert held.sizes == [1, 2, 1, 1], "half of what waits is left to the other, each time"
    held.plane.close()


def test_memory_is_given_back_and_the_session_goes_on(first: Package) -> None:
    session = loaded(first).session
    (before,) = session.run(rows(0.3), ["probabilities"])
    session.run(rows(*[0.1] * 64))
    session.shrink(rows(0.3))
    (after,) = session.run(rows(0.3), ["probabilities"])
    assert (before == after).all()


def test_preferred_sizes_are_waited_for() -> None:
    assert largest_of([1, 1, 1], 8, (4,), waited=False) == 0
    assert largest_of([1, 1, 1, 1, 1], 8, (4,), waited=False) == 4
    assert largest_of([1, 1, 1], 8, (4,), waited=True) == 3
    assert largest_of([9], 8, (), waited=False) == 1


# ── priorities, deadlines, clients that go away ───────────────────────────────────────────────


def test_under_strain_one_batch_runs_at_a_time(first: Package) -> None:
    double = Double(loaded(first))
    plane = DataPlane(None, id_prefix="p", rules=ServingRules(instances=2, batches=BatchRules(max_rows=1)))
    plane.ease(True)
    plane.switch(double.release)
    while double.running.acquire(blocking=False):
        pass
    double.gate.clear()
    asked = [plane.infer(call(0.1)) for _ in range(4)]
    assert double.running.acquire(timeout=10)
    assert not double.running.acquire(timeout=0.2), "the second instance waits"
    plane.ease(False)
    assert double.running.acquire(timeout=10), "and goes on when the strain is over"
    plane.ease(True)
    double.gate.set()
    for future in asked:
        assert isinstance(future, Future)
        future.result(10)
    plane.close()


def test_the_more_urgent_go_first_and_equals_in_their_order(first: Package) -> None:
    held = Held(first, batches=BatchRules(max_rows=1))
    done: list[str] = []
    for name, priority in (("usual", 0), ("source", 20), ("urgent", 1), ("usual too", 0), ("urgent too", 1)):
        future = held.ask(call(0.1, priority=priority))
        future.add_done_callback(lambda _, name=name: done.append(name))  # type: ignore[misc]
    held.go_on()
    last = held.ask(call(0.1, priority=1 << 30))
    last.result(10)
    assert done == ["urgent", "urgent too", "usual", "usual too", "source"]
    held.plane.close()


def test_whoever_waits_too_long_is_told_while_the_instance_is_busy(first: Package) -> None:
    held = Held(first)
    late = held.ask(call(0.1, timeout_s=0.05))
    with pytest.raises(DeadlinePassed, match="its time is over"):
        late.result(10)
    assert not held.first.done()
    held.go_on()
    assert held.plane.counters().errors == 0, "waiting is no fault of the model"
    held.plane.close()
    assert held.double.closed == 1


def test_an_endless_run_is_stopped(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = DataPlane(None, id_prefix="p", rules=ServingRules(deadline_s=0.1))
    release = loaded(first)
    plane.switch(release)
    served = plane._models.main
    assert served is not None
    slot, run = served.slot, release.session._run

    def endless(outputs: Any, inputs: Any, options: Any) -> Any:
        while not options.terminate:
            time.sleep(0.005)
        raise RuntimeError("Exiting due to terminate flag being set to true.")

    monkeypatch.setattr(release.session, "_run", endless)
    answer = plane.infer(call(0.1))
    assert isinstance(answer, Future)
    with pytest.raises(DeadlinePassed, match="digits was not done in time"):
        answer.result(10)
    assert slot.counters().errors == 1
    # A client that gives less time than the model takes would otherwise send a good release back.
    slot.row_ns = 1_000_000_000
    hurried = plane.infer(call(0.1, timeout_s=0.02))
    assert isinstance(hurried, Future)
    with pytest.raises(DeadlinePassed):
        hurried.result(10)
    assert slot.counters().errors == 1
    monkeypatch.setattr(release.session, "_run", run)
    again = plane.infer(call(0.1))
    assert isinstance(again, Future)
    assert again.result(10).model == "digits", "the next run of the same thread is not stopped"
    plane.close()


def test_a_client_that_goes_away_leaves_the_queue(first: Package) -> None:
    held = Held(first, most_waiting=1)
    gone = held.ask(call(0.1))
    with pytest.raises(Busy):
        held.ask(call(0.1))
    assert gone.cancel()
    with pytest.raises(CancelledError):
        gone.result(1)
    stays = held.ask(call(0.2))
    held.go_on()
    stays.result(10)
    assert held.sizes == [1, 1]
    held.plane.close()
    assert held.double.closed == 1


def test_a_run_that_nobody_waits_for_is_stopped(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = DataPlane(NotingRecorder(), id_prefix="p", rules=ServingRules(instances=1))
    release = loaded(first)
    plane.switch(release)
    began, stopped = threading.Event(), threading.Event()
    run = release.session._run

    def long(outputs: Any, inputs: Any, options: Any) -> Any:
        began.set()
        end = time.monotonic() + 10
        while not options.terminate and time.monotonic() < end:
            time.sleep(0.005)
        stopped.set()
        raise RuntimeError("Exiting due to terminate flag being set to true.")

    monkeypatch.setattr(release.session, "_run", long)

    async def client() -> None:
        answer = plane.infer(call(0.1))
        assert isinstance(answer, Future)
        waiting = asyncio.ensure_future(asyncio.wrap_future(answer))
        assert await asyncio.to_thread(began.wait, 10)
        waiting.cancel()
        assert await asyncio.to_thread(stopped.wait, 5), "the run went on for nobody"

    asyncio.run(client())
    monkeypatch.setattr(release.session, "_run", run)
    after = plane.infer(call(0.1))
    assert isinstance(after, Future)
    assert after.result(10).model == "digits"
    assert plane.counters().errors == 0, "it is no fault of the model"
    plane.close()


# ── several models ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, version, seed in (("other", "9", 5), ("other", "10", 6), ("third", "1", 7)):
        make_package(tmp_path / "models" / f"{name}-{version}", name=name, version=version, seed=seed)
    (tmp_path / "models" / "no package").mkdir()
    yield tmp_path / "models"


def test_models_and_versions_are_served_side_by_side(first: Package, folder: Path) -> None:
    plane = DataPlane(None, id_prefix="p")
    plane.switch(loaded(first))
    repository = Repository(folder, plane, load_folder, allowed=True)
    repository.load_all()

    def asked(model: str, version: str | None) -> str:
        answer = plane.infer(Call(model, version, "", rows(0.3)))
        assert isinstance(answer, Future)
        return answer.result(10).version

    assert (asked("digits", None), asked("other", None), asked("other", "9"), asked("third", "1")) == (
        "1",
        "10",
        "9",
        "1",
    )
    assert plane.describe("other", None).versions == ("9", "10")
    assert {(s["name"], s["version"]) for s in plane.statistics(None, None)} == {
        ("digits", "1"),
        ("other", "9"),
        ("other", "10"),
        ("third", "1"),
    }
    repository.unload("other")
    with pytest.raises(NotFound, match="there is no model other"):
        asked("other", None)
    states = {(e["name"], e["version"]): e["state"] for e in repository.index()}
    assert states == {
        ("digits", "1"): "READY",
        ("other", "9"): "UNAVAILABLE",
        ("other", "10"): "UNAVAILABLE",
        ("third", "1"): "READY",
    }
    assert [e["name"] for e in repository.index(ready_only=True)] == ["digits", "third"]
    repository.load("other")
    assert asked("other", None) == "10"
    plane.close()


def test_loading_and_unloading_leaves_nothing_behind(folder: Path) -> None:
    plane = DataPlane(None, id_prefix="p")
    sessions: list[weakref.ref[Any]] = []

    def load(path: Path) -> Any:
        release = load_folder(path)
        sessions.append(weakref.ref(release.session))
        return release

    repository = Repository(folder, plane, load, allowed=True)
    gc.disable()
    try:
        for _ in range(5):
            repository.load("other")
            future = plane.infer(Call("other", None, "", rows(0.3)))
            assert isinstance(future, Future)
            future.result(10)
            del future
            repository.unload("other")
        end = time.monotonic() + 5
        while any(session() is not None for session in sessions) and time.monotonic() < end:
            time.sleep(0.01)
        assert [session() for session in sessions] == [None] * 10, "freed without the garbage collector"
    finally:
        gc.enable()
    plane.close()


def test_versions_are_ordered_as_people_read_them() -> None:
    versions = ["10", "9", "1.2", "1.10", "2-beta", "2"]
    assert sorted(versions, key=version_order) == ["1.2", "1.10", "2", "2-beta", "9", "10"]


def test_a_broken_model_does_not_replace_one_that_serves(first: Package, folder: Path) -> None:
    plane = DataPlane(None, id_prefix="p")
    plane.add(load_folder(folder / "third-1"))
    broken = Double(load_folder(folder / "third-1"))
    broken.error = InferenceError("no")
    with pytest.raises(InferenceError):
        plane.add(broken.release)
    answer = plane.infer(Call("third", None, "", rows(0.3)))
    assert isinstance(answer, Future)
    assert answer.result(10).version == "1"
    plane.close()
