"""Deadlines of runs: one shared thread stops what takes too long (an endless Loop runs for ever otherwise).

A run that ends in time costs an entry into a dictionary and its removal; the thread looks at what is under way a few
times a second, so a deadline is kept to within `TICK_S`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TICK_S = 0.05


class Deadline:
    """One run's deadline; ``passed`` says whether it came."""

    __slots__ = ("action", "at", "passed")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at, self.action, self.passed = at, action, False


class Watchdog:
    """Calls actions when their time has come, on one daemon thread that sleeps while nothing runs."""

    def __init__(self) -> None:
        self._active: dict[int, Deadline] = {}
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, action: Callable[[], None]) -> Deadline:
        """Have ``action`` called in ``seconds``, give or take a tick, unless it is cleared before."""
        deadline = Deadline(time.monotonic() + seconds, action)
        self._active[id(deadline)] = deadline
        if not self._wake.is_set():
            self._start()
        return deadline

    def clear(self, deadline: Deadline) -> bool:
        """Take a deadline back; returns whether it had passed already."""
        self._active.pop(id(deadline), None)
        return deadline.passed

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            while self._active:
                time.sleep(TICK_S)
                now = time.monotonic()
                for key, deadline in list(self._active.items()):
                    if deadline.at <= now and self._active.pop(key, None) is not None:
                        deadline.passed = True
                        deadline.action()
            self._wake.clear()
            if self._active:  # a run that began between the last look and the line above
                self._wake.set()


WATCHDOG = Watchdog()
