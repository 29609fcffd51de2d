"""A trial from the hub's wish to the device's answer: a thread that lives only while one is wanted.

Each step may end it with a reason, which is the answer.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from edge_agent.logs import Log
from edge_agent.observing.store import Store
from edge_agent.trials.fetching import fetch
from edge_agent.trials.files import remove
from edge_agent.trials.measuring import measure, wait_for_rest
from edge_agent.trials.told import Told
from edge_agent.trials.under_way import Around, Dropped, Ended, UnderWay
from edgeloop.protocol import TrialReport, TrialRequest
from edgeloop.protocol.trials import CHECKING, DONE, ENDED, MEASURING, REFUSED, WAITING

log = Log(__name__)


class Trials:
    """Takes what the hub wants measured, one at a time.

    Args:
        store: the agent's records.
        around: the agent.
    """

    def __init__(self, store: Store, around: Around) -> None:
        self._around, self._told = around, Told(store, around.report)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted: TrialRequest | None = None
        self._stopping = threading.Event()

    def follow(self, request: TrialRequest | None) -> None:
        """Take the hub's wish, or that it has none any more; returns at once."""
        with self._lock:
            if request == self._wanted:
                return
            self._wanted = request
            if request is not None and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
                self._thread.start()

    def report(self) -> TrialReport | None:
        """Where the trial stands that the hub asks for, or None when it asks for none."""
        wanted, report = self._wanted, self._told.report
        if wanted is None:
            return None
        return report if report is not None and report.id == wanted.id else TrialReport(wanted.id, WAITING)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End what is under way; it is not begun again."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        """One trial after another, until none is wanted that has no answer yet."""
        while (request := self._next()) is not None:
            told, known = self._told, self._told.report
            if known is not None and known.id == request.id and known.state in (CHECKING, MEASURING):
                reason = f"the agent was ended while it was {known.state}; ask for another trial"
                told.answer(request.id, REFUSED, reason)
                continue
            try:
                self._try(request)
            except Dropped:  # in order: it has ended no life of the agent, and may be begun anew
                why = "the agent stops" if self._stopping.is_set() else "the hub wants something else"
                told.say(request.id, WAITING, why)
            except Ended as ended:
                told.answer(request.id, REFUSED, str(ended))
            except Exception as error:  # a fault of ours is told like any other reason
                log.exception("a trial failed for a reason of our own", trial=request.id)
                told.answer(request.id, REFUSED, f"a fault of the agent: {type(error).__name__}: {error}")
            finally:
                with suppress(OSError):
                    remove(self._around.settings().data)

    def _next(self) -> TrialRequest | None:
        """What is to be done now; None also ends the thread, under the lock that `follow` starts it under."""
        with self._lock:
            wanted, report = self._wanted, self._told.report
            answered = wanted is not None and report is not None and report.id == wanted.id and report.state in ENDED
            if wanted is None or answered or self._stopping.is_set():
                self._thread = None
                return None
            return wanted

    def _try(self, request: TrialRequest) -> None:
        trial = UnderWay(request, self._around, self._told, lambda wait_s: self._unwanted(request, wait_s))
        trial.tell(WAITING, "waiting until the device is idle")
        wait_for_rest(trial)
        package, fetched = fetch(trial)
        rows, facts = measure(trial, package, fetched)
        good = sum(not row.reason for row in rows)
        self._told.answer(request.id, DONE, f"{good} of {len(rows)} candidates are good", rows, facts)

    def _unwanted(self, request: TrialRequest, wait_s: float) -> bool:
        """Wait, and say whether the agent stops or the hub wants something else."""
        return self._stopping.wait(wait_s) or self._wanted != request
