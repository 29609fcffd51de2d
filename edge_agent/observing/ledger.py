"""The ledger: totals of all closed windows, per release. What the hub has counted must equal it.

It is written in the same transaction as the outbox row of the window, so it never says more or less than the windows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from edge_agent.observing.store import Store
from edgeloop.insights import Window

COUNTS = ("predictions", "errors", "feedback", "escalations")
Totals = dict[str, Any]
"""``predictions``, ``errors``, ``feedback``, ``escalations``, ``windows``: int; ``classes``: list of int."""


def totals_of(window: Window) -> Totals:
    """What one closed window adds to the ledger."""
    totals: Totals = {name: int(getattr(window, name)) for name in COUNTS}
    totals["windows"] = 1
    totals["classes"] = [int(count) for count in window.arrays["classes"]]
    return totals


def add(left: Mapping[str, Any], right: Mapping[str, Any]) -> Totals:
    """The sum of two totals."""
    total: Totals = {name: left.get(name, 0) + right.get(name, 0) for name in (*COUNTS, "windows")}
    mine, theirs = list(left.get("classes", ())), list(right.get("classes", ()))
    width = max(len(mine), len(theirs))
    pairs = zip(mine + [0] * (width - len(mine)), theirs + [0] * (width - len(theirs)), strict=True)
    total["classes"] = [a + b for a, b in pairs]
    return total


class Ledger:
    """Totals of closed windows in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, db: sqlite3.Connection, release: str, totals: Totals) -> None:
        """Add one closed window's totals inside the caller's transaction."""
        found = db.execute("SELECT totals FROM ledger WHERE release = ?", (release,)).fetchone()
        now = add(json.loads(found[0]), totals) if found else totals
        db.execute("INSERT OR REPLACE INTO ledger VALUES (?, ?)", (release, json.dumps(now)))

    def instead(self, db: sqlite3.Connection, counted: Window, leaving: Window) -> None:
        """Take it that ``leaving`` was counted, not ``counted``: other classes; all other totals are the same."""
        classes = leaving.arrays["classes"] - counted.arrays["classes"]
        if classes.any():
            self.add(db, counted.release, {"classes": [int(count) for count in classes]})

    def by_release(self) -> dict[str, Totals]:
        """Release digest → totals.

        Raises:
            StoreError: the database refused.
        """
        return {release: json.loads(totals) for release, totals in self._store.rows("SELECT * FROM ledger")}

    def totals(self) -> dict[str, int]:
        """Sums over all releases; without classes, since two releases may mean different things by a class.

        Raises:
            StoreError: the database refused.
        """
        sums = dict.fromkeys((*COUNTS, "windows"), 0)
        for totals in self.by_release().values():
            for name in sums:
                sums[name] += totals[name]
        return sums
