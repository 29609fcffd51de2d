"""Work on a thread of its own, of which only the latest of each subject counts.

What comes over MQTT is verified here, not on the link's thread. Whoever floods a topic is verified at a pace that
slackens with each refusal, and what comes last is always looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import field, replace

from edge_agent.logs import Log
from edge_agent.ports import Untrusted
from edgeloop.records import dataclass

log = Log(__name__)

#: Seconds: first and longest rest of a subject after a refusal, and the longest wait before it is looked at again.
FIRST_REST_S, LONGEST_REST_S, LONGEST_WAIT_S = 0.25, 10.0, 60.0

Work = Callable[[], None]


@dataclass(frozen=True)
class _Subject:
    """What waits, from when on, and how often it was refused in a row."""

    work: Work | None = None
    due: float = 0.0
    rested: float = 0.0
    refusals: int = field(default=0)


class Latest:
    """The thread; it starts with the first work."""

    def __init__(self, name: str) -> None:
        """Nothing waits.

        Args:
            name: of the thread.
        """
        self._changed = threading.Condition()
        self._subjects: dict[str, _Subject] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(self, subject: str, work: Work) -> None:
        """Do it soon, unless something newer of the subject comes first; returns at once.

        Args:
            subject: what it is about.
            work: raises `Untrusted` for what is not to be trusted, and is called again when that may pass.
        """
        with self._changed:
            if self._stopping:
                return
            at = self._subjects.get(subject, _Subject())
            self._subjects[subject] = replace(at, work=work, due=at.rested)
            self._changed.notify()
            if self._thread.ident is None:
                self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            subject, work = taken
            try:
                work()
            except Untrusted as error:
                self._refused(subject, work if error.again else None)
            except Exception:  # a fault of ours must not end the thread
                log.exception("what came from the hub could not be handled", subject=subject)
                self._refused(subject, None)
            else:
                with self._changed:
                    self._subjects[subject] = replace(self._subjects[subject], refusals=0, rested=0.0)

    def _take(self) -> tuple[str, Work] | None:
        """What is due first; None when the thread is to end."""
        with self._changed:
            while not self._stopping:
                waiting = [(at.due, name) for name, at in self._subjects.items() if at.work is not None]
                due, name = min(waiting, default=(None, ""))
                if due is not None and due <= time.monotonic():
                    at = self._subjects[name]
                    self._subjects[name] = replace(at, work=None)
                    assert at.work is not None
                    return name, at.work
                self._changed.wait(None if due is None else due - time.monotonic())
        return None

    def _refused(self, subject: str, again: Work | None) -> None:
        now = time.monotonic()
        with self._changed:
            at = self._subjects[subject]
            refusals = min(at.refusals + 1, 30)
            pause = FIRST_REST_S * 2.0 ** (refusals - 1)
            rested = now + min(pause, LONGEST_REST_S)
            if at.work is not None:  # something newer has come meanwhile
                at = replace(at, due=rested)
            elif again is not None:
                at = replace(at, work=again, due=now + min(pause, LONGEST_WAIT_S))
            self._subjects[subject] = replace(at, rested=rested, refusals=refusals)
