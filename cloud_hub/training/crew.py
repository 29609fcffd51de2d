"""Who does training runs: a thread for each, a few at once. One may take hours; nothing else waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Doing:
    """A run that is under way, as its thread and everybody else see it.

    Attributes:
        run: its id.
        model: which is retrained.
        line: what its trainer has said last, or "".
        share: how much of it is done, 0…1, or None where that is not known.
        interrupted: whether the hub's own stop has ended it.
    """

    def __init__(self, run: int, model: str) -> None:
        self.run, self.model = run, model
        self.line = ""
        self.share: float | None = None
        self.interrupted = False
        self._stop = threading.Event()

    def stopped(self) -> bool:
        """Whether it has to end now."""
        return self._stop.is_set()

    def stop(self, *, interrupted: bool = False) -> None:
        """Have it end soon; returns at once."""
        self.interrupted = self.interrupted or interrupted
        self._stop.set()


Work = Callable[[Doing], None]
"""One run, to its end; it looks at ``stopped`` often."""


class Crew:
    """Threads that do runs.

    Args:
        at_once: runs at the same time, of different models.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = at_once
        self._lock = threading.Lock()
        self._doing: dict[int, tuple[Doing, threading.Thread]] = {}
        self._closed = False

    def take(self, run: int, model: str, work: Work) -> bool:
        """Begin a run; False where it has to wait: all hands are full, or one of them has this model."""
        with self._lock:
            busy = [doing for doing, _ in self._doing.values()]
            if self._closed or len(busy) >= self._at_once or any(doing.model == model for doing in busy):
                return False
            doing = Doing(run, model)
            # A daemon: a trainer that does not listen must not keep the process from its end.
            thread = threading.Thread(target=self._do, args=(doing, work), name=f"training-{run}", daemon=True)
            thread.start()  # where the system has no thread left, nobody is taken to be at work
            self._doing[run] = doing, thread
        return True

    def find(self, run: int) -> Doing | None:
        """The run, if it is under way."""
        with self._lock:
            found = self._doing.get(run)
        return None if found is None else found[0]

    def join(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; False when that has not come in time."""
        until = time.monotonic() + timeout_s
        with self._lock:
            threads = [thread for _, thread in self._doing.values()]
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in threads)

    def stop(self, timeout_s: float) -> None:
        """Have every run end, begin none any more, and wait for them, for so long."""
        with self._lock:
            self._closed = True
            for doing, _ in self._doing.values():
                doing.stop(interrupted=True)
        if not self.join(timeout_s):
            log.warning("a training run did not stop in time; it is cut off")

    def _do(self, doing: Doing, work: Work) -> None:
        try:
            work(doing)
        except Exception:
            log.exception("run %s ended in a fault", doing.run)
        finally:
            with self._lock:
                del self._doing[doing.run]
