"""What the hub is told of a trial, and what is kept of it in the agent's records.

One that was begun is never begun again by a later life of the agent, since it may have been what ended the life before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from edge_agent.logs import Log
from edge_agent.observing.store import Store, StoreError
from edgeloop.protocol import ProtocolError, TrialReport, decode, encode
from edgeloop.protocol.trials import TrialRow

log = Log(__name__)

#: Where the answer is kept in the agent's records.
NOTE = "trial"
#: Of a reason while it goes on, and of the one that ends it; characters.
MOST_REASON, MOST_ANSWER = 300, 2000


class Told:
    """The report of the latest trial; read by any thread.

    Args:
        store: the agent's records.
        soon: have the hub told soon.
    """

    def __init__(self, store: Store, soon: Callable[[], None]) -> None:
        self._store, self._soon = store, soon
        self._lock = threading.Lock()
        self._report = self._kept()

    @property
    def report(self) -> TrialReport | None:
        """The latest; None when there was no trial."""
        with self._lock:
            return self._report

    def say(self, trial: str, state: str, reason: str) -> str:
        """Say where a trial stands; it is kept when its state is another one.

        Returns:
            Why it could not be kept, or "".
        """
        now = TrialReport(trial, state, reason[:MOST_REASON])
        before = self._tell(now)
        changed = before is None or (before.id, before.state) != (now.id, now.state)
        return self._keep(now) if changed else ""

    def answer(
        self, trial: str, state: str, reason: str, rows: Sequence[TrialRow] = (), facts: Mapping[str, str] | None = None
    ) -> None:
        """Say what has come of it. It is kept if that is possible: else a later life may measure it again."""
        now = TrialReport(trial, state, reason[:MOST_ANSWER], tuple(rows), facts or {})
        if problem := self._keep(now):
            log.error("the answer to a trial could not be kept", reason=problem)
        self._tell(now)

    def _tell(self, now: TrialReport) -> TrialReport | None:
        """Returns what was told before."""
        with self._lock:
            before, self._report = self._report, now
        if before != now:
            log.info("trial", trial=now.id, state=now.state, reason=now.reason)
            self._soon()
        return before

    def _kept(self) -> TrialReport | None:
        try:
            note = self._store.note(NOTE)
            return None if note is None else TrialReport.from_wire(decode(note))
        except (StoreError, ProtocolError):
            return None

    def _keep(self, report: TrialReport) -> str:
        try:
            self._store.set_note(NOTE, encode(report.to_wire()))
        except StoreError as error:
            return f"the agent's records cannot be written: {error}"
        return ""
