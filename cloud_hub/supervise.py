"""Background work: named threads that are started again when they fail, and stopped in order, in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: First and longest wait before failed work is started again, seconds.
BACKOFF_S = (0.2, 30.0)

Work = Callable[[threading.Event], None]
"""Work takes an event and returns soon after it is set. Work that returns before is done."""


@dataclass(frozen=True)
class WorkerState:
    """How a worker is doing.

    Attributes:
        name: its name, also of its thread.
        alive: whether its thread runs.
        failures: times that it raised.
        last_error: the last one's message, or "".
    """

    name: str
    alive: bool
    failures: int
    last_error: str


class Worker:
    """One piece of background work.

    Args:
        name: for logs, metrics and the thread.
        work: what to do; see `Work`.
    """

    def __init__(self, name: str, work: Work) -> None:
        self.name, self._work = name, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failures, self._last_error = 0, ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Set the stop event; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False when it has not come in time."""
        if self._thread.ident is not None:
            self._thread.join(max(timeout_s, 0.0))
        return not self._thread.is_alive()

    @property
    def state(self) -> WorkerState:
        """How it is doing now."""
        return WorkerState(self.name, self._thread.is_alive(), self._failures, self._last_error)

    def _run(self) -> None:
        wait = BACKOFF_S[0]
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._work(self._stop)
                return
            except Exception as error:
                self._failures += 1
                self._last_error = f"{type(error).__name__}: {error}"
                if time.monotonic() - began > BACKOFF_S[1]:
                    wait = BACKOFF_S[0]  # it had worked for a while: a new trouble, not the old one
                log.exception("%s failed; it starts again in %.1f s", self.name, wait)
                self._stop.wait(wait)
                wait = min(wait * 2, BACKOFF_S[1])


class Supervisor:
    """The workers of a program, stopped in the opposite order of their start."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(self, name: str, work: Work) -> None:
        """Add a worker and start it."""
        worker = Worker(name, work)
        self._workers.append(worker)
        worker.start()

    def stop(self, timeout_s: float) -> list[str]:
        """Stop every worker, last started first, all within ``timeout_s``; returns the names of those that did not."""
        until = time.monotonic() + timeout_s
        late = []
        for worker in reversed(self._workers):
            worker.ask_to_stop()
            if not worker.join(until - time.monotonic()):
                log.warning("%s did not stop in time; it is cut off", worker.name)
                late.append(worker.name)
        return late

    @property
    def states(self) -> list[WorkerState]:
        """How each worker is doing, in the order of their start."""
        return [worker.state for worker in self._workers]


def every(interval_s: float, tick: Callable[[], None]) -> Work:
    """Work that calls ``tick`` every ``interval_s`` seconds; a tick that raises is logged, counted and tried again."""

    def work(stop: threading.Event) -> None:
        while not stop.wait(interval_s):
            tick()

    return work
