"""The data plane: which session answers, and what is noted of each answer. It knows nothing of HTTP or gRPC.

A request holds the slot of the release that it began on. A switch makes another slot the current one; the old slot's
session is closed when its last request has ended. So a switch loses none, and waits for none.

A run that is expected to be short is made at once, in the caller's thread; a longer one goes to its model's scheduler.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import field
from typing import Any

import numpy as np

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Recorder, Sampling, ServingCounters
from edge_agent.serving.batching import BatchRules
from edge_agent.serving.calls import Answer, Array, Call, Described, Escalating
from edge_agent.serving.configuration import triton_configuration
from edge_agent.serving.errors import BadRequest, Busy, DeadlinePassed, ModelFailed, NotFound, NotReady
from edge_agent.serving.scheduler import Job, Scheduler, Served
from edge_agent.serving.slot import MAX_TEXT_BYTES, Plan, Slot, finite
from edge_agent.serving.statistics import now_ms
from edgeloop.records import dataclass
from edgeloop.runtime import DeadlineExceeded, InferenceError, Stopped

log = Log(__name__)

#: Runs that are expected to be shorter than this are made in the caller's thread, which is the event loop's: handing
#: one over and back costs about 100 µs, and longer ones would keep other clients waiting.
INLINE_NS = 250_000
NOT_AUDITED: tuple[int, ...] = ()
NOTHING_SERVES = "no release serves yet; `edge-agent status` says what the update is waiting for"


@dataclass(frozen=True)
class ServingRules:
    """What the owner of the device decides about serving.

    Attributes:
        deadline_s: seconds after which a run is stopped, waiting included.
        instances: runs of one model at once; 0: as many as the policy's threads allow.
        most_waiting: requests that may wait for one model; each holds its tensors in memory.
        batches: dynamic batching.
        max_text_bytes: of one text; a tokenizer cannot be stopped while it reads one.
    """

    deadline_s: float = 30.0
    instances: int = 0
    most_waiting: int = 64
    batches: BatchRules = field(default_factory=BatchRules)
    max_text_bytes: int = MAX_TEXT_BYTES


class DataPlane:
    """Answers requests with the channel's release, and with other models; implements `edge_agent.ports.Serving`."""

    def __init__(self, recorder: Recorder | None, *, id_prefix: str, rules: ServingRules | None = None) -> None:
        """Start without a release.

        Args:
            recorder: who observes; None observes nothing.
            id_prefix: of generated ids: no other life of this agent may have the same.
            rules: the owner's.
        """
        self._recorder, self._rules = recorder, rules or ServingRules()
        self._sampling: Sampling | None = None
        self._prefix, self._numbers = id_prefix, itertools.count(1)
        self._lock = threading.Lock()
        self._main: Served | None = None
        self._others: dict[tuple[str, str], Served] = {}
        # What requests look up: the version that serves, by model; and each version.
        self._current: dict[str, Served] = {}
        self._exact: dict[tuple[str, str], Served] = {}
        self._under_way = 0
        self._gently = False
        self._escalating: Escalating | None = None
        self._idle = threading.Event()
        self._idle.set()

    # ── ports.Serving ─────────────────────────────────────────────────────────────────────────

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request for the channel's model."""
        served = None if loaded is None else self._make(loaded, self._recorder)
        with self._lock:
            old, self._main = self._main, served
            self._index()
            close = old is not None and old.slot.retire(None if served is None else served.slot)
        if old is not None and close:
            old.close()

    def counters(self) -> ServingCounters:
        """Totals of the channel's release that serves now, since its switch."""
        with self._lock:
            return ServingCounters(0, 0, 0, 0, 0) if self._main is None else self._main.slot.counters()

    def ease(self, gently: bool) -> None:
        """Run one batch of each model at a time, since the device is under strain; or as the rules say again."""
        with self._lock:
            self._gently = gently
            for served in self._exact.values():
                served.scheduler.ease(gently)

    def escalate(self, escalating: Escalating) -> None:
        """Have hard answers of the channel's model escalated from now on."""
        self._escalating = escalating

    def sample(self, sampling: Sampling | None) -> None:
        """Offer what the channel's release answers to whoever keeps samples; None: to nobody."""
        self._sampling = sampling

    # ── other models ──────────────────────────────────────────────────────────────────────────

    def add(self, loaded: LoadedRelease) -> None:
        """Serve another model, or another version, beside the channel's; it is not observed: the hub knows none of it.

        One of the same name and version is replaced; its requests in flight finish on it.
        """
        served = self._make(loaded, None)
        key = (served.slot.model, served.slot.version)
        with self._lock:
            old = self._others.pop(key, None)
            self._others[key] = served
            self._index()
            close = old is not None and old.slot.retire(served.slot)
        if old is not None and close:
            old.close()

    def remove(self, model: str, version: str) -> bool:
        """Serve a model no more that was added; returns whether there was one."""
        with self._lock:
            old = self._others.pop((model, version), None)
            self._index()
            close = old is not None and old.slot.retire(None)
        if old is not None and close:
            old.close()
        return old is not None

    def others(self) -> list[tuple[str, str]]:
        """Name and version of each model that was added."""
        with self._lock:
            return list(self._others)

    # ── what doors ask ────────────────────────────────────────────────────────────────────────

    @property
    def loaded(self) -> LoadedRelease | None:
        """The channel's release that serves now."""
        served = self._main
        return None if served is None else served.slot.loaded

    def ready(self) -> bool:
        """Whether the channel's release serves."""
        return self._main is not None

    def describe(self, model: str, version: str | None) -> Described:
        """What a client may know of a model.

        Raises:
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
        """
        with self._lock:
            slot = self._find(model, version).slot
            versions = tuple(known for name, known in self._exact if name == model)
        meta = slot.loaded.package.meta
        return Described(slot.model, slot.version, versions, slot.inputs, slot.usual_specs, meta.labels, meta.picture)

    def configuration(self, model: str, version: str | None) -> dict[str, Any]:
        """Triton's ``ModelConfig`` of a model, as JSON types; raises as `describe`."""
        with self._lock:
            served = self._find(model, version)
        return triton_configuration(served.slot, served.scheduler.instances)

    def statistics(self, model: str | None, version: str | None) -> list[dict[str, Any]]:
        """Triton's ``model_stats`` of one model or, for None, of all, as JSON types; raises as `describe`."""
        with self._lock:
            if model is None:
                chosen = list(self._exact.values())
            elif version is not None:
                chosen = [self._find(model, version)]
            else:
                self._find(model, None)
                chosen = [served for (name, _), served in self._exact.items() if name == model]
            return [s.slot.tally.as_triton(s.slot.model, s.slot.version) for s in chosen]

    def infer(self, call: Call) -> Answer | Future[Answer]:
        """Answer a request: at once when the run is short, else with a future.

        Whoever loses interest cancels the future: what waits leaves the queue, and what runs is stopped.

        Raises:
            BadRequest: an input or output does not fit the model.
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
            Busy: too many requests wait already.
            DeadlinePassed: the time was over before there was an answer.
            ModelFailed: the model failed on a request that fits it.
        """
        arrived_ns = time.perf_counter_ns()
        with self._lock:
            served = self._current.get(call.model)
            if served is None or (call.version is not None and call.version != served.slot.version):
                served = self._find(call.model, call.version)
            slot = served.slot
            slot.in_flight += 1
        try:
            rows = slot.check(call.inputs)
            plan = slot.plan(call.outputs)
            if slot.row_ns * rows > INLINE_NS:
                return self._queue(served, plan, call, rows)
            if slot.recorder is not None and plan.light is not None and not slot.recorder.in_full():
                escalating = self._escalating
                looked_at = self._sampling is not None or (
                    escalating is not None and escalating.on and escalating.draws()
                )
                plan = plan.sifted or plan if looked_at else plan.light
        except BaseException:
            self._leave(served)
            raise
        return self._run_now(served, plan, call, rows, arrived_ns)

    def close(self, timeout_s: float = 10.0) -> None:
        """Serve nothing any more; runs that are under way may end first, for so long."""
        with self._lock:
            everything = [*self._others.values(), *([self._main] if self._main is not None else [])]
        for served in everything:
            served.scheduler.close()
        if not self._idle.wait(timeout_s):
            log.warning("a run was still under way at the end", waited_s=timeout_s)
        for model, version in self.others():
            self.remove(model, version)
        self.switch(None)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _make(self, loaded: LoadedRelease, recorder: Recorder | None) -> Served:
        slot = Slot(loaded, recorder, self._rules.batches, self._rules.max_text_bytes)
        scheduler = Scheduler(
            self._run_jobs,
            self._drop,
            instances=self._rules.instances or loaded.session.instances,
            most_waiting=self._rules.most_waiting,
            rules=self._rules.batches,
            best_rows=slot.evidence.best_rows(self._rules.batches),
            sizes=slot.evidence.sizes(),
        )
        return Served(slot, scheduler)

    def _index(self) -> None:
        """Make the look-up tables anew; the caller holds the lock."""
        everything = [*self._others.values(), *([self._main] if self._main is not None else [])]
        everything.sort(key=lambda served: (served is self._main, version_order(served.slot.version)))
        self._current = {served.slot.model: served for served in everything}
        for served in everything:
            served.scheduler.ease(self._gently)
        self._exact = {(served.slot.model, served.slot.version): served for served in everything}

    def _find(self, model: str, version: str | None) -> Served:
        """The caller holds the lock."""
        found = self._current.get(model) if version is None else self._exact.get((model, version))
        if found is not None:
            return found
        if self._main is None and model not in self._current:
            raise NotReady(NOTHING_SERVES)
        asked = f"model {model:.200}" + ("" if version is None else f", version {version:.200}")
        there = "; ".join(f"{name}, version {known}" for name, known in itertools.islice(self._exact, 16))
        raise NotFound(f"there is no {asked}; {there}, serves")

    def _leave(self, served: Served) -> None:
        with self._lock:
            last = self._left(served)
        if last:
            served.close()

    def _left(self, served: Served) -> bool:
        """One request fewer; returns whether the slot's session is to be closed. The caller holds the lock."""
        slot = served.slot
        slot.in_flight -= 1
        current = None if self._main is None else self._main.slot
        return slot.retired and slot.in_flight == 0 and not slot.lives_on(current)

    # ── short runs ────────────────────────────────────────────────────────────────────────────

    def _run_now(self, served: Served, plan: Plan, call: Call, rows: int, arrived_ns: int) -> Answer | Future[Answer]:
        slot, tally = served.slot, served.slot.tally
        limit = self._rules.deadline_s
        try:
            start_ns = time.perf_counter_ns()
            found = slot.loaded.session.run(
                call.inputs, plan.names, min(limit, call.timeout_s) if call.timeout_s else limit
            )
            end_ns = time.perf_counter_ns()
            self._check_scores(slot, plan, found, call.inputs)
            answer = self._noted(slot, plan, call, found, end_ns - arrived_ns, end_ns - start_ns)
        except BaseException as error:
            raised, failed, nonfinite = self._explain(slot, error, call, rows)
            with self._lock:
                if failed:
                    tally.failures += 1
                    tally.failures_ns += time.perf_counter_ns() - arrived_ns
                    tally.nonfinite += nonfinite
                last = self._left(served)
            if last:
                served.close()
            raise raised from error
        with self._lock:
            tally.rows += rows
            tally.requests += 1
            tally.requests_ns += end_ns - arrived_ns
            tally.last_ms = now_ms()
            tally.executed(rows, start_ns - arrived_ns, end_ns - start_ns)
            last = self._left(served)
        if last:
            served.close()
        if slot.recorder is not None:
            slot.recorder.settle()
        return answer if answer.pending is None else answer.pending.better(answer)

    def _check_scores(self, slot: Slot, plan: Plan, found: Sequence[Array], inputs: Mapping[str, Array]) -> None:
        for position in plan.scores:
            if not finite(found[position]):
                slot.blame(inputs)
                raise NotFinite(f"its output {plan.names[position]} is not finite")

    def _noted(
        self, slot: Slot, plan: Plan, call: Call, found: Sequence[Array], latency_ns: int, run_ns: int
    ) -> Answer:
        identity = call.id or f"{self._prefix}-{next(self._numbers)}"
        recorder, audit, asked = slot.recorder, NOT_AUDITED, None
        if recorder is not None:
            segment = "" if recorder.segment_field is None else recorder.segment_of(call.parameters)
            if recorder.audit_share:
                audit = recorder.drawn(slot.loaded, identity, _rows(call.inputs[slot.first]))
            if self._escalating is not None and self._escalating.on and plan.recorded:
                left_s = (call.timeout_s or self._rules.deadline_s) - latency_ns / 1e9
                asked = self._escalating.draw(slot.loaded, identity, call.inputs, found, plan.recorded, segment, left_s)
            if plan.alone is not None:
                recorder.record_scores(slot.loaded, identity, found[plan.alone], segment, latency_ns, run_ns)
            else:
                first = call.inputs[slot.first]
                if call.lent:
                    first = first.copy()
                recorder.record(slot.loaded, identity, first, found, plan.recorded, segment, latency_ns, run_ns)
            if (sampling := self._sampling) is not None:
                sampling.offer(slot.loaded, identity, call.inputs, call.lent, found, plan.recorded, segment)
        answer = Answer(identity, slot.model, slot.version, tuple(zip(plan.wanted, found, strict=False)), audit)
        if asked is None:
            return answer
        asked.send()
        return answer._replace(escalated=asked.rows, pending=asked if asked.waits else None)

    def _explain(self, slot: Slot, error: BaseException, call: Call, rows: int) -> tuple[BaseException, bool, int]:
        """What to raise for an error, whether it is a failure of the model, and rows that were not finite."""
        match error:
            case DeadlineExceeded():
                raised: BaseException = DeadlinePassed(f"{slot.model} was not done in time: {error}")
            case Stopped():
                return Busy(str(error)), False, 0
            case InferenceError():
                raised = ModelFailed(f"{slot.model} failed on this input: {error}")
            case _:
                return error, False, 0
        if (recorder := slot.recorder) is not None:
            segment = "" if recorder.segment_field is None else recorder.segment_of(call.parameters)
            recorder.record_error(slot.loaded, segment)
        return raised, True, rows if isinstance(error, NotFinite) else 0

    # ── longer runs ───────────────────────────────────────────────────────────────────────────

    def _queue(self, served: Served, plan: Plan, call: Call, rows: int) -> Future[Answer]:
        limit = self._rules.deadline_s
        # One plan is one object for the same outputs; arrays go together that differ in their number of rows alone.
        kind = (id(plan), *(array.shape[1:] for array in call.inputs.values()))
        job = Job(served, call, rows, kind, min(limit, call.timeout_s) if call.timeout_s else limit)
        with self._lock:
            self._under_way += 1
            self._idle.clear()
        try:
            served.scheduler.submit(job)
        except BaseException:
            self._arrived(1)
            raise
        return job

    def _run_jobs(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one kind with one run, in an instance's thread."""
        served = jobs[0].served
        slot, tally = served.slot, served.slot.tally
        taken_ns = time.perf_counter_ns()
        outcomes: list[Answer | BaseException] = []
        rows = sum(job.rows for job in jobs)
        gathered_ns = end_ns = taken_ns
        try:
            plan = slot.plan(jobs[0].call.outputs)
            inputs = jobs[0].call.inputs if len(jobs) == 1 else _gather(jobs)
            gathered_ns = time.perf_counter_ns()
            left_s = max(job.ends for job in jobs) - time.monotonic()
            found = slot.loaded.session.run(inputs, plan.names, max(left_s, 0.001))
            end_ns = time.perf_counter_ns()
            for job, part in zip(jobs, _split(jobs, rows, found), strict=True):
                outcomes.append(self._outcome(slot, plan, job, part, end_ns - job.arrived_ns, end_ns - gathered_ns))
        except BaseException as error:
            outcomes = [error] * len(jobs)
        explained = [
            (outcome, False, 0) if isinstance(outcome, Answer) else self._explain(slot, outcome, job.call, job.rows)
            for job, outcome in zip(jobs, outcomes, strict=True)
        ]
        with self._lock:
            if any(isinstance(outcome, Answer) for outcome, _, _ in explained):
                tally.executed(rows, gathered_ns - taken_ns, end_ns - gathered_ns)
            for job, (outcome, failed, nonfinite) in zip(jobs, explained, strict=True):
                tally.queued += 1
                tally.queue_ns += taken_ns - job.arrived_ns
                if isinstance(outcome, Answer):
                    tally.rows += job.rows
                    tally.requests += 1
                    tally.requests_ns += end_ns - job.arrived_ns
                elif failed:
                    tally.failures += 1
                    tally.failures_ns += time.perf_counter_ns() - job.arrived_ns
                    tally.nonfinite += nonfinite
            tally.last_ms = now_ms()
            last = [self._left(served) for _ in jobs][-1]
        for job, (outcome, _, _) in zip(jobs, explained, strict=True):
            _give(job, outcome)
        if last:
            served.close()
        # Only now: whoever closes the data plane waits for this, and then no session is open any more.
        self._arrived(len(jobs))
        if slot.recorder is not None:
            slot.recorder.settle()

    def _outcome(
        self, slot: Slot, plan: Plan, job: Job, found: Sequence[Array], latency_ns: int, run_ns: int
    ) -> Answer | BaseException:
        """The answer to one job of a batch, or what is wrong with that one alone."""
        try:
            self._check_scores(slot, plan, found, job.call.inputs)
            return self._noted(slot, plan, job.call, found, latency_ns, run_ns)
        except (InferenceError, BadRequest) as error:
            return error

    def _drop(self, job: Job) -> None:
        """A job has ended that was never run."""
        self._leave(job.served)
        self._arrived(1)

    def _arrived(self, count: int) -> None:
        with self._lock:
            self._under_way -= count
            if self._under_way == 0:
                self._idle.set()


class NotFinite(InferenceError):
    """An output that has to be finite is not."""


def _give(job: Job, outcome: Answer | BaseException) -> None:
    """Let a client have its answer, or wait for a better one."""
    if not isinstance(outcome, Answer):
        job.set_exception(outcome)
    elif outcome.pending is None:
        job.set_result(outcome)
    else:
        outcome.pending.better(outcome, job)


def _rows(first: Array) -> int:
    return first.shape[0] if first.shape else 1


def version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    """Order of versions: numbers in them count as numbers, so that 10 comes after 9."""
    parts = "".join(c if c.isdigit() else f"\0{c}\0" for c in version).split("\0")
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in parts if part)


def _gather(jobs: Sequence[Job]) -> dict[str, Array]:
    return {name: np.concatenate([job.call.inputs[name] for job in jobs]) for name in jobs[0].call.inputs}


def _split(jobs: Sequence[Job], rows: int, found: Sequence[Array]) -> Iterator[Sequence[Array]]:
    """Each job's part of a batch's outputs."""
    if len(jobs) == 1:
        yield found
        return
    if strange := [array.shape for array in found if not array.shape or array.shape[0] != rows]:
        raise InferenceError(f"an output of a batch of {rows} rows has the shape {strange[0]}")
    start = 0
    for job in jobs:
        yield [array[start : start + job.rows] for array in found]
        start += job.rows
