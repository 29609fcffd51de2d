"""Runs that are too long for the caller's thread: they wait for an instance of their model, and several run as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from edge_agent.serving.calls import Answer, Array, Call
from edge_agent.serving.errors import BadRequest
from edge_agent.serving.models import Models
from edge_agent.serving.noting import Noting
from edge_agent.serving.scheduler import Job, Served
from edge_agent.serving.slot import Plan, Slot
from edge_agent.serving.statistics import now_ms
from edgeloop.runtime import InferenceError


class LongerRuns:
    """What waits and runs outside the callers' threads, of all models."""

    def __init__(self, models: Models, noting: Noting, deadline_s: float) -> None:
        """Nothing waits yet.

        Args:
            models: whose slots are counted.
            noting: makes the answers.
            deadline_s: seconds that a request may take, waiting included.
        """
        self._models, self._noting, self._deadline_s = models, noting, deadline_s
        self._lock = models.lock
        self._under_way = 0
        self._idle = threading.Event()
        self._idle.set()

    def queue(self, served: Served, call: Call, rows: int) -> Future[Answer]:
        """Have a request answered later; its slot counts it as in flight.

        Raises:
            Busy: too many wait already.
        """
        limit = self._deadline_s
        slot = served.slot
        # Jobs go together that want the same outputs, and whose inputs differ in their number of rows alone. One whose
        # own inputs have different numbers of them would spoil the others' answers.
        uneven = slot.uneven(call.inputs)
        kind = object() if uneven else (call.outputs, *(call.inputs[spec.name].shape[1:] for spec in slot.inputs))
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

    def run(self, jobs: Sequence[Job]) -> None:
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
            (outcome, False, 0)
            if isinstance(outcome, Answer)
            else self._noting.failure(slot, outcome, job.call, job.rows)
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
            last = [self._models.left(served) for _ in jobs][-1]
        for job, (outcome, _, _) in zip(jobs, explained, strict=True):
            _give(job, outcome)
        if last:
            self._models.end(served)
        # Only now: whoever closes the data plane waits for this, and then no session is open any more.
        self._arrived(len(jobs))
        if slot.recorder is not None:
            slot.recorder.settle()

    def drop(self, job: Job) -> None:
        """A job has ended that was never run."""
        self._models.leave(job.served)
        self._arrived(1)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; returns whether that is so."""
        return self._idle.wait(timeout_s)

    def _outcome(
        self, slot: Slot, plan: Plan, job: Job, found: Sequence[Array], latency_ns: int, run_ns: int
    ) -> Answer | BaseException:
        """The answer to one job of a batch, or what is wrong with that one alone."""
        try:
            self._noting.check_scores(slot, plan, found, job.call.inputs)
            return self._noting.answer(slot, plan, job.call, found, latency_ns, run_ns)
        except (InferenceError, BadRequest) as error:
            return error

    def _arrived(self, count: int) -> None:
        with self._lock:
            self._under_way -= count
            if self._under_way == 0:
                self._idle.set()


def _give(job: Job, outcome: Answer | BaseException) -> None:
    """Let a client have its answer, or wait for a better one."""
    if not isinstance(outcome, Answer):
        job.set_exception(outcome)
    elif outcome.pending is None:
        job.set_result(outcome)
    else:
        outcome.pending.better(outcome, job)


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
