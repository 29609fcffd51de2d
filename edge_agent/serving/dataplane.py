"""The data plane: which session answers, and what is noted of each answer. It knows nothing of HTTP or gRPC.

A run that is expected to be short is made at once, in the caller's thread; a longer one waits for an instance of its
model (`edge_agent.serving.longer_runs`).
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import field
from typing import Any

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Recorder, Sampling, ServingCounters
from edge_agent.serving.batching import BatchRules
from edge_agent.serving.calls import Answer, Call, Described, Escalating
from edge_agent.serving.configuration import triton_configuration
from edge_agent.serving.longer_runs import LongerRuns
from edge_agent.serving.models import Models
from edge_agent.serving.noting import Noting
from edge_agent.serving.scheduler import Scheduler, Served
from edge_agent.serving.slot import MAX_TEXT_BYTES, Plan, Slot
from edge_agent.serving.statistics import now_ms
from edgeloop.records import dataclass

log = Log(__name__)

#: Runs that are expected to be shorter than this are made in the caller's thread, which is the event loop's: handing
#: one over and back costs about 100 µs, and longer ones would keep other clients waiting.
INLINE_NS = 250_000


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
        self._models = Models()
        self._noting = Noting(id_prefix, self._rules.deadline_s)
        self._longer = LongerRuns(self._models, self._noting, self._rules.deadline_s)

    # ── ports.Serving ─────────────────────────────────────────────────────────────────────────

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request for the channel's model."""
        self._models.switch(None if loaded is None else self._make(loaded, self._recorder))

    def counters(self) -> ServingCounters:
        """Totals of the channel's release that serves now, since its switch."""
        with self._models.lock:
            main = self._models.main
            return ServingCounters(0, 0, 0, 0, 0, 0) if main is None else main.slot.counters()

    def ease(self, gently: bool) -> None:
        """Run one batch of each model at a time, since the device is under strain; or as the rules say again."""
        self._models.ease(gently)

    def escalate(self, escalating: Escalating) -> None:
        """Have hard answers of the channel's model escalated from now on."""
        self._noting.escalating = escalating

    def sample(self, sampling: Sampling | None) -> None:
        """Offer what the channel's release answers to whoever keeps samples; None: to nobody."""
        self._noting.sampling = sampling

    # ── other models ──────────────────────────────────────────────────────────────────────────

    def add(self, loaded: LoadedRelease) -> None:
        """Serve another model, or another version, beside the channel's; it is not observed: the hub knows none of it.

        One of the same name and version is replaced; its requests in flight finish on it.
        """
        self._models.add(self._make(loaded, None))

    def remove(self, model: str, version: str) -> bool:
        """Serve a model no more that was added; returns whether there was one."""
        return self._models.remove(model, version)

    def others(self) -> list[tuple[str, str]]:
        """Name and version of each model that was added."""
        return self._models.others()

    # ── what doors ask ────────────────────────────────────────────────────────────────────────

    @property
    def loaded(self) -> LoadedRelease | None:
        """The channel's release that serves now."""
        served = self._models.main
        return None if served is None else served.slot.loaded

    def ready(self) -> bool:
        """Whether the channel's release serves."""
        return self._models.main is not None

    def describe(self, model: str, version: str | None) -> Described:
        """What a client may know of a model.

        Raises:
            NotFound: there is no such model or version.
            NotReady: no release serves yet.
        """
        models = self._models
        with models.lock:
            slot = models.find(model, version).slot
            versions = tuple(known for name, known in models.exact if name == model)
        meta = slot.loaded.package.meta
        return Described(slot.model, slot.version, versions, slot.inputs, slot.usual_specs, meta.labels, meta.picture)

    def configuration(self, model: str, version: str | None) -> dict[str, Any]:
        """Triton's ``ModelConfig`` of a model, as JSON types; raises as `describe`."""
        with self._models.lock:
            served = self._models.find(model, version)
        return triton_configuration(served.slot, served.scheduler.instances)

    def statistics(self, model: str | None, version: str | None) -> list[dict[str, Any]]:
        """Triton's ``model_stats`` of one model or, for None, of all, as JSON types; raises as `describe`."""
        models = self._models
        with models.lock:
            if model is None:
                chosen = list(models.exact.values())
            elif version is not None:
                chosen = [models.find(model, version)]
            else:
                models.find(model, None)
                chosen = [served for (name, _), served in models.exact.items() if name == model]
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
        models = self._models
        with models.lock:
            served = models.current.get(call.model)
            if served is None or (call.version is not None and call.version != served.slot.version):
                served = models.find(call.model, call.version)
            slot = served.slot
            slot.in_flight += 1
        try:
            rows = slot.check(call.inputs)
            plan = slot.plan(call.outputs)
            if slot.row_ns * rows > INLINE_NS:
                return self._longer.queue(served, call, rows)
            if slot.recorder is not None and plan.light is not None and not slot.recorder.in_full():
                escalating = self._noting.escalating
                looked_at = self._noting.sampling is not None or (
                    escalating is not None and escalating.on and escalating.draws()
                )
                plan = plan.sifted or plan if looked_at else plan.light
        except BaseException:
            models.leave(served)
            raise
        return self._run_now(served, plan, call, rows, arrived_ns)

    def close(self, timeout_s: float = 10.0) -> None:
        """Serve nothing any more; runs that are under way may end first, for so long."""
        for served in self._models.all():
            served.scheduler.close()
        if not self._longer.wait(timeout_s):
            log.warning("a run was still under way at the end", waited_s=timeout_s)
        for model, version in self.others():
            self.remove(model, version)
        self.switch(None)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _make(self, loaded: LoadedRelease, recorder: Recorder | None) -> Served:
        slot = Slot(loaded, recorder, self._rules.batches, self._rules.max_text_bytes)
        scheduler = Scheduler(
            self._longer.run,
            self._longer.drop,
            instances=self._rules.instances or loaded.session.instances,
            most_waiting=self._rules.most_waiting,
            rules=self._rules.batches,
            best_rows=slot.evidence.best_rows(self._rules.batches),
            sizes=slot.evidence.sizes(),
        )
        return Served(slot, scheduler)

    def _run_now(self, served: Served, plan: Plan, call: Call, rows: int, arrived_ns: int) -> Answer | Future[Answer]:
        slot, tally = served.slot, served.slot.tally
        models, noting, limit = self._models, self._noting, self._rules.deadline_s
        try:
            start_ns = time.perf_counter_ns()
            found = slot.loaded.session.run(
                call.inputs, plan.names, min(limit, call.timeout_s) if call.timeout_s else limit
            )
            end_ns = time.perf_counter_ns()
            noting.check_scores(slot, plan, found, call.inputs)
            answer = noting.answer(slot, plan, call, found, end_ns - arrived_ns, end_ns - start_ns)
        except BaseException as error:
            raised, failed, nonfinite = noting.failure(slot, error, call, rows)
            with models.lock:
                if failed:
                    tally.failures += 1
                    tally.failures_ns += time.perf_counter_ns() - arrived_ns
                    tally.nonfinite += nonfinite
                last = models.left(served)
            if last:
                models.end(served)
            raise raised from error
        with models.lock:
            tally.rows += rows
            tally.requests += 1
            tally.requests_ns += end_ns - arrived_ns
            tally.last_ms = now_ms()
            tally.executed(rows, start_ns - arrived_ns, end_ns - start_ns)
            last = models.left(served)
        if last:
            models.end(served)
        if slot.recorder is not None:
            slot.recorder.settle()
        return answer if answer.pending is None else answer.pending.better(answer)
