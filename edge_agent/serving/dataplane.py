"""The data plane: which session answers, and what is noted of each answer. It knows nothing of HTTP.

A request holds the slot of the release that it began on. A switch makes another slot the current one; the old slot's
session is closed when its last request has ended. So a switch loses none, and waits for none.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Recorder, ServingCounters
from edge_agent.serving.errors import Busy, ModelFailed, NotFound, NotReady
from edge_agent.serving.slot import Array, Plan, Slot, finite
from edgeloop.package import OutputSpec, TensorSpec
from edgeloop.runtime import DeadlineExceeded, InferenceError

log = Log(__name__)

#: Runs that are expected to be shorter than this stay on the event loop: handing one to a thread costs about 50 µs,
#: and longer ones would keep other clients waiting.
INLINE_NS = 1_000_000
#: Longer runs that may wait for a thread; each holds its request's tensors in memory.
MOST_WAITING = 64


class Answer(NamedTuple):
    """What a request gets: the prediction's id, model and version, and the outputs with their names."""

    id: str
    model: str
    version: str
    outputs: tuple[tuple[str, Array], ...]


class Described(NamedTuple):
    """What a client may know of a model: name, version, inputs, and the outputs that it gets without naming any."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]


class DataPlane:
    """Answers requests with the current release; implements `edge_agent.ports.Serving`."""

    def __init__(
        self, recorder: Recorder | None, *, id_prefix: str, threads: int = 2, deadline_s: float = 30.0
    ) -> None:
        """Start without a release.

        Args:
            recorder: who observes; None observes nothing.
            id_prefix: of generated ids: no other life of this agent may have the same.
            threads: for runs that are too long for the event loop.
            deadline_s: seconds after which a run is stopped.
        """
        self._recorder, self._deadline_s = recorder, deadline_s
        self._prefix, self._numbers = id_prefix, itertools.count(1)
        self._lock = threading.Lock()
        self._slot: Slot | None = None
        self._under_way = 0
        self._idle = threading.Event()
        self._idle.set()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    # ── ports.Serving ─────────────────────────────────────────────────────────────────────────

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request."""
        slot = None if loaded is None else Slot(loaded, self._recorder)
        with self._lock:
            old, self._slot = self._slot, slot
            close = old is not None and old.retire(slot)
        if old is not None and close:
            old.loaded.session.close()

    def counters(self) -> ServingCounters:
        """Totals of the release that serves now, since its switch."""
        with self._lock:
            return ServingCounters(0, 0, 0, 0) if self._slot is None else self._slot.counters()

    # ── what doors ask ────────────────────────────────────────────────────────────────────────

    @property
    def loaded(self) -> LoadedRelease | None:
        """The release that serves now."""
        slot = self._slot
        return None if slot is None else slot.loaded

    def describe(self, model: str, version: str | None) -> Described:
        """What a client may know of a model.

        Raises:
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
        """
        slot = self._find(model, version)
        return Described(slot.model, slot.version, slot.inputs, slot.usual_specs)

    def infer(
        self, model: str, version: str | None, identity: str, inputs: Mapping[str, Array], wanted: tuple[str, ...]
    ) -> Answer | Awaitable[Answer]:
        """Answer a request: at once when the run is short, else as something to await.

        Args:
            model: its name.
            version: its version, or None for the one that serves.
            identity: the client's id, or "" to have one made.
            inputs: by name.
            wanted: names of outputs, or () for the usual ones.

        Raises:
            BadRequest: an input or output does not fit the model.
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
            Busy: too many long runs wait already.
            ModelFailed: the model failed on a request that fits it.
        """
        with self._lock:
            slot = self._find(model, version)
            slot.in_flight += 1
        try:
            rows = slot.check(inputs)
            plan = slot.plan(wanted)
            inline = slot.row_ns * rows <= INLINE_NS
            if not inline:
                return self._hand_over(slot, plan, identity, inputs, rows)
        except BaseException:
            self._leave(slot)
            raise
        return self._run(slot, plan, identity, inputs, rows)

    def close(self, timeout_s: float = 10.0) -> None:
        """Serve nothing any more; runs that are under way may end first, for so long."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not self._idle.wait(timeout_s):
            log.warning("a run was still under way at the end", waited_s=timeout_s)
        self.switch(None)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _find(self, model: str, version: str | None) -> Slot:
        slot = self._slot
        if slot is None:
            raise NotReady("no release serves yet; `edge-agent status` says what the update is waiting for")
        if model != slot.model or (version is not None and version != slot.version):
            asked = f"model {model:.200}" + ("" if version is None else f", version {version:.200}")
            raise NotFound(f"there is no {asked}; {slot.model}, version {slot.version}, serves")
        return slot

    def _hand_over(
        self, slot: Slot, plan: Plan, identity: str, inputs: Mapping[str, Array], rows: int
    ) -> Awaitable[Answer]:
        """Run in a thread. A run whose future is cancelled before it begins still leaves its slot."""
        with self._lock:
            if self._under_way >= MOST_WAITING + self._threads:
                raise Busy(f"{self._under_way} requests wait already; try again in a moment")
            self._under_way += 1
            self._idle.clear()
        try:
            future = self._pool.submit(self._run, slot, plan, identity, inputs, rows)
        except BaseException:
            self._arrived()
            raise
        future.add_done_callback(lambda done: self._cancelled(slot) if done.cancelled() else self._arrived())
        return asyncio.wrap_future(future)

    def _cancelled(self, slot: Slot) -> None:
        self._leave(slot)
        self._arrived()

    def _arrived(self) -> None:
        with self._lock:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    def _leave(
        self, slot: Slot, predictions: int = 0, errors: int = 0, nonfinite: int = 0, latency_ns: int = 0
    ) -> None:
        with self._lock:
            slot.predictions += predictions
            slot.errors += errors
            slot.nonfinite += nonfinite
            slot.latency_ns += latency_ns
            slot.in_flight -= 1
            last = slot.retired and slot.in_flight == 0 and not slot.lives_on(self._slot)
        if last:
            slot.loaded.session.close()

    def _run(self, slot: Slot, plan: Plan, identity: str, inputs: Mapping[str, Array], rows: int) -> Answer:
        predictions = errors = nonfinite = latency_ns = 0
        recorder = self._recorder
        try:
            start = time.perf_counter_ns()
            found = slot.loaded.session.run(inputs, plan.names, self._deadline_s)
            taken_ns = time.perf_counter_ns() - start
            for position in plan.scores:
                if not finite(found[position]):
                    slot.blame(inputs)
                    nonfinite = rows
                    raise InferenceError(f"its output {plan.names[position]} is not finite")
            predictions, latency_ns = rows, taken_ns
            identity = identity or f"{self._prefix}-{next(self._numbers)}"
            answer = Answer(identity, slot.model, slot.version, tuple(zip(plan.wanted, found, strict=False)))
            if recorder is not None:
                noted = {name: found[position] for name, position in plan.recorded}
                recorder.record(slot.loaded, identity, inputs[slot.first], noted, latency_ns)
            return answer
        except InferenceError as error:
            errors = 1
            if recorder is not None:
                recorder.record_error(slot.loaded)
            late = "the deadline passed: " if isinstance(error, DeadlineExceeded) else ""
            raise ModelFailed(f"{slot.model} failed on this input: {late}{error}") from error
        finally:
            self._leave(slot, predictions, errors, nonfinite, latency_ns)
