"""Deadlines of runs: one shared thread stops what takes too long (an endless Loop runs for ever otherwise)."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Alarm:
    """One pending deadline; ``fired`` says whether it came."""

    at: float
    number: int
    action: Callable[[], None] = field(compare=False)
    active: bool = field(default=True, compare=False)
    fired: bool = field(default=False, compare=False)


class Watchdog:
    """Calls actions at their time, on one daemon thread that starts with the first one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[Alarm] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, action: Callable[[], None]) -> Alarm:
        """Have ``action`` called in ``seconds`` unless the alarm is cleared before."""
        alarm = Alarm(time.monotonic() + seconds, next(self._numbers), action)
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            heapq.heappush(self._heap, alarm)
            if self._heap[0] is alarm:
                self._condition.notify()
        return alarm

    def clear(self, alarm: Alarm) -> bool:
        """Take an alarm back; returns whether it had fired already."""
        with self._condition:
            alarm.active = False
            return alarm.fired

    def _run(self) -> None:
        with self._condition:
            while True:
                if not self._heap:
                    self._condition.wait()
                    continue
                wait = self._heap[0].at - time.monotonic()
                if wait > 0 and self._heap[0].active:
                    self._condition.wait(wait)
                    continue
                alarm = heapq.heappop(self._heap)
                if alarm.active:
                    alarm.fired = True
                    alarm.action()


WATCHDOG = Watchdog()
