"""Deadlines: one shared thread stops what takes too long (an endless Loop runs for ever otherwise).

What is watched has a time, ``at``, and something to do when it has come, ``fire``. The thread looks a few times a
second, so a deadline is kept to within `TICK_S`, and one that is kept costs a number that is written twice: each thread
that runs models has one `Guard`, which it uses for all its runs. While nothing is under way the thread sleeps.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from typing import Any, Protocol

from edgeloop.runtime.ort import ort

log = logging.getLogger(__name__)

TICK_S = 0.05
#: Looks without anything under way after which the thread sleeps until it is woken.
LOOKS_BEFORE_SLEEP = 20
NEVER = math.inf


class Watched(Protocol):
    """What can have a deadline."""

    #: When to fire, in seconds of the monotonic clock; `NEVER`: not now.
    at: float

    def fire(self) -> None:
        """The time has come; called once, from the watching thread."""


class Guard:
    """Can stop the runs of one thread: by their deadlines, or by hand.

    Attributes:
        at: deadline of the run that is under way.
        options: ``onnxruntime.RunOptions`` of this thread's runs.
        late: the deadline came.
        used: the options have stopped a run and are good for no other.
    """

    __slots__ = ("__weakref__", "at", "late", "options", "used")

    def __init__(self) -> None:
        self.at = NEVER
        self.renew()

    def renew(self) -> None:
        """Make options for further runs."""
        self.options: Any = ort.RunOptions()
        self.late = self.used = False

    def fire(self) -> None:
        """The deadline has come."""
        self.late = True
        self.stop()

    def stop(self) -> None:
        """Stop the run that is under way; whoever calls this knows that it still is."""
        self.used = True
        self.options.terminate = True


class Watchdog:
    """Looks at everything that is watched, on one daemon thread."""

    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._guards = threading.local()
        #: Whether the thread sleeps. Who gives something a time looks here afterwards, and calls `wake`.
        self.asleep = True

    def guard(self) -> Guard:
        """The guard of the calling thread."""
        guard: Guard | None = getattr(self._guards, "guard", None)
        if guard is None:
            guard = self._guards.guard = Guard()
            self.watch(guard)
        return guard

    def watch(self, entry: Watched) -> None:
        """Look at something from now on, as long as somebody else holds it."""
        with self._lock:
            self._watched.add(entry)
        if self.asleep and entry.at != NEVER:
            self.wake()

    def wake(self) -> None:
        """Look again: something has been given a time."""
        with self._lock:
            self.asleep = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
        self._awake.set()

    def _run(self) -> None:
        quiet = 0
        while True:
            time.sleep(TICK_S)
            quiet = 0 if self._look() else quiet + 1
            if quiet >= LOOKS_BEFORE_SLEEP:
                self._awake.clear()
                self.asleep = True
                # Who gave something a time just before that line did not wake us.
                if not self._look():
                    self._awake.wait()
                self.asleep = False
                quiet = 0

    def _look(self) -> bool:
        """Fire what is due; returns whether anything is under way."""
        with self._lock:
            watched = list(self._watched)
        now = time.monotonic()
        for entry in watched:
            if entry.at <= now:
                entry.at = NEVER
                try:
                    entry.fire()
                except Exception:  # everybody else's deadlines hang on this thread
                    log.exception("a deadline came, and what has to happen then failed")
        return any(entry.at != NEVER for entry in watched)


WATCHDOG = Watchdog()
