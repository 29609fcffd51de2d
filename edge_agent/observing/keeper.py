"""Putting windows away: checkpoints of open ones, the closing of finished ones, and what a crash has left behind.

Each is one transaction, so at every moment the ledger equals the sum of all windows that were ever closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from edge_agent.observing.clocks import ClockNotes
from edge_agent.observing.ladder import keep
from edge_agent.observing.ledger import Ledger, totals_of
from edge_agent.observing.outbox import Outbox
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.retention import Changes
from edge_agent.observing.rows import pack
from edge_agent.observing.store import Store
from edgeloop.insights import Window
from edgeloop.insights.policy import InsightsPolicy


class Keeper:
    """Writes windows to the store."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        ledger: Ledger,
        known: KnownReleases,
        clocks: ClockNotes,
        policy: Callable[[], InsightsPolicy],
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._ledger = ledger
        self._known = known
        self._clocks = clocks
        self._policy = policy

    def recover(self) -> int:
        """Close the windows that a killed agent has left open; returns how many.

        Raises:
            StoreError: the database refused.
        """
        left = self._store.rows("SELECT release, segment, totals, body FROM open_window")
        with self._store.transaction() as db:
            for release, segment, text, body in left:
                totals = json.loads(text)
                self._outbox.append(db, release, segment, totals["predictions"], body)
                self._ledger.add(db, release, totals)
            db.execute("DELETE FROM open_window")
        return len(left)

    def write(self, closing: Sequence[Window], still_open: Sequence[Window], changes: Changes) -> None:
        """Put closed windows into outbox and ledger, and write a checkpoint of the open ones and of kept predictions.

        Raises:
            StoreError: the database refused; nothing was written.
        """
        wanted = self._policy()
        closing_bodies = [
            (window, pack(window if wanted.aspects is None else keep(window, wanted.wants))) for window in closing
        ]
        open_bodies = [(window, pack(window)) for window in still_open]
        with self._store.transaction() as db:
            if closing:
                self._clocks.remember()
            for window, body in closing_bodies:
                self._known.save(db, window.release)
                key = (window.release, window.segment)
                db.execute("DELETE FROM open_window WHERE release = ? AND segment = ?", key)
                self._outbox.append(db, *key, window.predictions, body)
                self._ledger.add(db, window.release, totals_of(window))
            for window, body in open_bodies:
                self._known.save(db, window.release)
                row = (window.release, window.segment, json.dumps(totals_of(window)), body)
                db.execute("INSERT OR REPLACE INTO open_window VALUES (?, ?, ?, ?)", row)
            changes.write(db)
