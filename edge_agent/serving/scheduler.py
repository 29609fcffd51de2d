"""The scheduler: requests that are too long for the event loop wait here for one of their model's instances.

The queue is bounded, ordered by priority and then by arrival, and every job in it has a deadline: whoever has waited
too long is told so, whatever the instances are doing. A job whose client has gone leaves the queue; one that runs is
stopped when nobody in its batch waits any more.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from edge_agent.logs import Log
from edge_agent.serving.batching import BatchRules, largest_of
from edge_agent.serving.calls import DEFAULT_PRIORITY, Answer, Call
from edge_agent.serving.errors import Busy, DeadlinePassed
from edge_agent.serving.slot import Slot
from edgeloop.runtime import WATCHDOG, Guard
from edgeloop.runtime.deadline import NEVER

log = Log(__name__)


class Served(NamedTuple):
    """A release that serves, and the queue of its longer runs."""

    slot: Slot
    scheduler: Scheduler


class Job(Future[Answer]):
    """A request that waits or runs. Cancelling it works in both states; its future is what the door awaits.

    Attributes:
        served: what answers it.
        call: what is asked.
        rows: of its inputs.
        kind: jobs of one kind can run in one batch.
        arrived_ns: ``time.perf_counter_ns`` at which it came.
        ends: when its time is over, in seconds of the monotonic clock.
        at: the same while it waits, for the watchdog; then `NEVER`.
    """

    def __init__(self, served: Served, call: Call, rows: int, kind: object, timeout_s: float) -> None:
        super().__init__()
        self.served = served
        self.call, self.rows, self.kind = call, rows, kind
        self.priority = call.priority or DEFAULT_PRIORITY
        self.arrived_ns = time.perf_counter_ns()
        self.at = self.ends = time.monotonic() + timeout_s
        self.abandoned = False

    def cancel(self) -> bool:
        """Nobody waits for it any more: it leaves the queue, or its run is stopped."""
        return self.served.scheduler.abandon(self)

    def fire(self) -> None:
        """The watchdog's call: it has waited too long."""
        self.served.scheduler.expire(self)


class Scheduler:
    """The queue and the instances of one model."""

    def __init__(
        self,
        run: Callable[[Sequence[Job]], None],
        left: Callable[[Job], None],
        *,
        instances: int,
        most_waiting: int,
        rules: BatchRules,
        best_rows: int,
        sizes: Sequence[int] = (),
    ) -> None:
        """Prepare; threads start with the first job.

        Args:
            run: answers jobs of one kind, all of them, and never raises.
            left: told of each job that ends without having been run.
            instances: runs at once.
            most_waiting: jobs in the queue, at most.
            rules: of batches.
            best_rows: the largest batch that is worth it, 1: none.
            sizes: that a batch may have; () for any.
        """
        self._run, self._left = run, left
        self.instances, self._most_waiting = instances, most_waiting
        self._allowed = instances
        self._rules, self._best_rows, self._sizes = rules, best_rows, sizes
        self._queue: list[Job] = []
        self._changed = threading.Condition()
        self._running: dict[Guard, list[Job]] = {}
        self._threads = self._idle = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Busy: too many wait already.
        """
        with self._changed:
            # Those that run count too: a queue from which an idle instance is just about to take is not full.
            under_way = len(self._queue) + sum(map(len, self._running.values()))
            if self._closed or under_way >= self._most_waiting + self.instances:
                raise Busy(f"{under_way} requests wait already; try again in a moment")
            bisect.insort_right(self._queue, job, key=lambda other: other.priority)
            if not self._idle and self._threads < self.instances:
                self._threads += 1
                threading.Thread(target=self._work, name="inference", daemon=True).start()
            # Whoever waits for a batch to fill is woken as well as whoever has nothing to do.
            self._changed.notify(self.instances if self._rules.delay_s else 1)
        WATCHDOG.watch(job)

    def abandon(self, job: Job) -> bool:
        """Take a job out of the queue, or stop its run if nobody else waits for it; returns whether it had begun."""
        with self._changed:
            waited = self._withdraw(job)
            if not waited:
                job.abandoned = True
                for guard, jobs in self._running.items():
                    if job in jobs and all(other.abandoned for other in jobs):
                        guard.stop()
        if waited:
            Future.cancel(job)
            job.set_running_or_notify_cancel()
            self._left(job)
        return waited

    def expire(self, job: Job) -> None:
        """A job has waited too long."""
        with self._changed:
            waited = self._withdraw(job)
        if waited:
            self._left(job)
            seconds = (time.perf_counter_ns() - job.arrived_ns) / 1e9
            job.set_exception(
                DeadlinePassed(f"it waited for {seconds:.3g} s and its time is over; {self.waiting} others wait")
            )

    def ease(self, gently: bool) -> None:
        """Run one batch at a time, or as many as there are instances; what waits meanwhile goes in larger batches."""
        with self._changed:
            self._allowed = 1 if gently else self.instances
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more; what waits is cancelled, what runs ends."""
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._changed.notify_all()
        for job in waiting:
            job.cancel()

    # ── the instances ─────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        guard = WATCHDOG.guard()
        while True:
            with self._changed:
                jobs = self._take()
                if jobs:
                    self._running[guard] = jobs
            if not jobs:
                return
            begun = [job for job in jobs if job.set_running_or_notify_cancel()]
            try:
                if begun:
                    self._run(begun)
            except Exception:
                log.exception("a run ended for a reason of our own")
            with self._changed:
                del self._running[guard]
                if self._allowed < self.instances:  # somebody may have been kept from beginning
                    self._changed.notify()
                if guard.used:  # stopped when the run had just ended
                    guard.renew()

    def _take(self) -> list[Job]:
        """The next batch; [] when there will be none. The caller holds the lock."""
        while True:
            while not self._queue or len(self._running) >= self._allowed:
                if self._closed and not self._queue:
                    self._threads -= 1
                    return []
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            first = self._queue[0]
            if self._best_rows <= 1 or first.rows >= self._best_rows:
                return self._remove([first])
            alike = [job for job in self._queue if job.kind == first.kind]
            # A batch that leaves other instances idle takes longer than two halves of it side by side.
            free = self._idle + self.instances - self._threads
            alike = alike[: -(-len(alike) // (free + 1))]
            delay = first.arrived_ns / 1e9 + self._rules.delay_s - time.perf_counter()
            count = largest_of(
                [job.rows for job in alike],
                self._best_rows,
                self._rules.preferred,
                waited=delay <= 0 or self._closed,
                sizes=self._sizes,
            )
            if count:
                return self._remove(alike[:count])
            self._changed.wait(delay)

    def _remove(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self._queue.remove(job)
            job.at = NEVER
        return jobs

    def _withdraw(self, job: Job) -> bool:
        """Remove a job if it waits; the caller holds the lock."""
        if job not in self._queue:
            return False
        self._remove([job])
        return True
