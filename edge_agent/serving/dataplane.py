"""The data plane: which session answers, and what is noted of each answer. It knows nothing of HTTP.

A request holds the slot of the release that it began on. A switch makes another slot the current one; the old slot's
session is closed when its last request has ended. So a switch loses none, and waits for none.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import threading
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.ports import LoadedRelease, Recorder, ServingCounters
from edge_agent.serving.errors import BadRequest, ModelFailed, NotFound, NotReady
from edgeloop.package import OutputSpec, TensorSpec
from edgeloop.runtime import DeadlineExceeded, InferenceError
from edgeloop.runtime.datatypes import numpy_dtype

Array = npt.NDArray[Any]

#: Runs that are expected to be shorter than this stay on the event loop: handing one to a thread costs about 50 µs,
#: and longer ones would keep other clients waiting.
INLINE_NS = 1_000_000
#: Rows and runs with which a new session is timed.
WARM_UP_RUNS = 7


@dataclass(frozen=True)
class Answer:
    """What a request gets: the prediction's id, model and version, and the outputs by name."""

    id: str
    model: str
    version: str
    outputs: Mapping[str, Array]


class _Slot:
    """A release that serves, and the requests that run on it."""

    def __init__(self, loaded: LoadedRelease, recorder: Recorder | None) -> None:
        package, session = loaded.package, loaded.session
        self.loaded = loaded
        self.inputs: tuple[TensorSpec, ...] = session.inputs
        self.dtypes = {spec.name: numpy_dtype(spec.datatype) for spec in session.inputs}
        self.known = {output.name for output in session.outputs}
        # The features are for observing; a client gets them when it names them.
        self.usual = tuple(output.name for output in session.outputs if output.role != "features")
        extra = recorder.wanted_outputs(loaded) if recorder is not None else ()
        self.recorded = tuple(name for name in extra if name in self.known)
        self.scores = tuple(o.name for o in session.outputs if o.role in ("probabilities", "logits"))
        self.model, self.version = package.name, package.version
        self.counters = ServingCounters(0, 0, 0, 0)
        self.in_flight = 0
        self.retired = False
        self.row_ns = _time_one_row(loaded)


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
        self._slot: _Slot | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    # ── ports.Serving ─────────────────────────────────────────────────────────────────────────

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request."""
        slot = None if loaded is None else _Slot(loaded, self._recorder)
        with self._lock:
            old, self._slot = self._slot, slot
            if old is not None:
                old.retired = True
                close = old.in_flight == 0 and (slot is None or old.loaded is not slot.loaded)
        if old is not None and close:
            old.loaded.session.close()

    def counters(self) -> ServingCounters:
        """Totals of the release that serves now, since its switch."""
        with self._lock:
            return ServingCounters(0, 0, 0, 0) if self._slot is None else self._slot.counters

    # ── what doors ask ────────────────────────────────────────────────────────────────────────

    @property
    def loaded(self) -> LoadedRelease | None:
        """The release that serves now."""
        slot = self._slot
        return None if slot is None else slot.loaded

    def find(self, model: str, version: str | None) -> tuple[tuple[TensorSpec, ...], tuple[OutputSpec, ...]]:
        """Inputs and usual outputs of a model.

        Raises:
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
        """
        slot = self._find(model, version)
        return slot.inputs, tuple(o for o in slot.loaded.session.outputs if o.name in slot.usual)

    def infer(
        self, model: str, version: str | None, identity: str, inputs: Mapping[str, Array], wanted: Sequence[str] | None
    ) -> Answer | Awaitable[Answer]:
        """Answer a request: at once when the run is short, else as something to await.

        Args:
            model: its name.
            version: its version, or None for the one that serves.
            identity: the client's id, or "" to have one made.
            inputs: by name.
            wanted: names of outputs, or None for the usual ones.

        Raises:
            BadRequest: an input or output does not fit the model.
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
            ModelFailed: the model failed on a request that fits it.
        """
        slot = self._enter(model, version)
        try:
            rows = self._check(slot, inputs, wanted)
        except BaseException:
            self._leave(slot)
            raise
        if slot.row_ns * rows <= INLINE_NS:
            return self._run(slot, identity, inputs, wanted)
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, self._run, slot, identity, inputs, wanted)

    def close(self) -> None:
        """Serve nothing any more; requests that run end first."""
        self._pool.shutdown(wait=True)
        self.switch(None)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _find(self, model: str, version: str | None) -> _Slot:
        slot = self._slot
        if slot is None:
            raise NotReady("no release serves yet; `edge-agent status` says what the update is waiting for")
        if model != slot.model or version not in (None, "", slot.version):
            asked = model if version is None else f"{model} version {version}"
            raise NotFound(f"there is no {asked}; {slot.model} version {slot.version} serves")
        return slot

    def _enter(self, model: str, version: str | None) -> _Slot:
        with self._lock:
            slot = self._find(model, version)
            slot.in_flight += 1
            return slot

    def _leave(
        self, slot: _Slot, predictions: int = 0, errors: int = 0, nonfinite: int = 0, latency_ns: int = 0
    ) -> None:
        with self._lock:
            c = slot.counters
            slot.counters = ServingCounters(
                c.predictions + predictions, c.errors + errors, c.nonfinite + nonfinite, c.latency_ns + latency_ns
            )
            slot.in_flight -= 1
            last = slot.retired and slot.in_flight == 0
            again = self._slot is not None and self._slot.loaded is slot.loaded
        if last and not again:
            slot.loaded.session.close()

    def _check(self, slot: _Slot, inputs: Mapping[str, Array], wanted: Sequence[str] | None) -> int:
        """Names, datatypes and shapes; returns the number of rows."""
        rows = 1
        for position, spec in enumerate(slot.inputs):
            array = inputs.get(spec.name)
            if array is None:
                raise BadRequest(f"input {spec.name!r} is missing; {slot.model} takes {_describe(slot.inputs)}")
            if array.dtype != slot.dtypes[spec.name]:
                raise BadRequest(f"input {spec.name!r} is {array.dtype}; it has to be {spec.datatype}")
            if len(array.shape) != len(spec.shape) or any(
                want not in (-1, got) for want, got in zip(spec.shape, array.shape, strict=True)
            ):
                raise BadRequest(f"input {spec.name!r} has shape {list(array.shape)}; it has to be {list(spec.shape)}")
            if position == 0 and array.shape:
                rows = array.shape[0]
        if len(inputs) > len(slot.inputs):
            unknown = min(set(inputs) - {spec.name for spec in slot.inputs})
            raise BadRequest(f"there is no input {unknown!r}; {slot.model} takes {_describe(slot.inputs)}")
        if wanted is not None and not slot.known.issuperset(wanted):
            raise BadRequest(f"there is no output {min(set(wanted) - slot.known)!r}; there are {', '.join(slot.usual)}")
        if rows == 0:
            raise BadRequest("the batch is empty; send at least one row")
        return rows

    def _run(self, slot: _Slot, identity: str, inputs: Mapping[str, Array], wanted: Sequence[str] | None) -> Answer:
        rows = errors = nonfinite = latency_ns = 0
        try:
            names = list(dict.fromkeys((*(slot.usual if wanted is None else wanted), *slot.recorded)))
            start = time.perf_counter_ns()
            found = dict(zip(names, slot.loaded.session.run(inputs, names, self._deadline_s), strict=True))
            latency_ns = time.perf_counter_ns() - start
            batch = len(found[names[0]]) if found[names[0]].shape else 1
            for name in slot.scores:
                if name in found and not np.isfinite(found[name]).all():
                    nonfinite = batch
                    raise InferenceError(f"its output {name} is not finite")
            rows = batch
            identity = identity or f"{self._prefix}-{next(self._numbers)}"
            if self._recorder is not None:
                self._recorder.record(slot.loaded, identity, inputs[slot.inputs[0].name], found, latency_ns)
            return Answer(identity, slot.model, slot.version, {name: found[name] for name in wanted or slot.usual})
        except InferenceError as error:
            errors = 1
            if self._recorder is not None:
                self._recorder.record_error(slot.loaded)
            late = "the deadline passed: " if isinstance(error, DeadlineExceeded) else ""
            raise ModelFailed(f"{slot.model} failed on this input: {late}{error}") from error
        finally:
            self._leave(slot, rows, errors, nonfinite, latency_ns)


def _describe(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs)


def _time_one_row(loaded: LoadedRelease) -> int:
    """Median nanoseconds for one row, on the golden inputs; it also warms the session up."""
    row = {name: values[:1] for name, values in loaded.package.golden().inputs.items()}
    times = []
    for _ in range(WARM_UP_RUNS):
        start = time.perf_counter_ns()
        loaded.session.run(row)
        times.append(time.perf_counter_ns() - start)
    return int(statistics.median(times))
