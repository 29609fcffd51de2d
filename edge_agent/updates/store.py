"""What the update machine remembers, durably: written before it is acted on."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.updates.rules import COMMITTED, IDLE, Offer, check_transition

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refused (offer TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (offer TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""
#: Refusals that are remembered; the oldest are forgotten first.
MOST_REFUSED = 1000


@dataclass(frozen=True)
class Position:
    """Where the machine stands.

    Attributes:
        state: of the table.
        release: digest that it is about, or None.
        rollout: that offered it, or None.
        reason: a sentence for a person.
        attempt: how many times this offer was tried.
        since: unix seconds.
        bytes: that this update has fetched.
    """

    state: str = IDLE
    release: str | None = None
    rollout: str | None = None
    reason: str = "nothing to do yet"
    attempt: int = 0
    since: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Installed:
    """A release that was committed, and what ran best here."""

    release: str
    variant: str
    provider: str


class UpdateStore:
    """``updates.db``: WAL, synchronous FULL, one connection; every write is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def position(self) -> Position:
        """Where the machine stood last."""
        found = self._fact("position")
        return Position(**found) if found else Position()

    def committed(self) -> Installed | None:
        """The last committed release."""
        found = self._fact("committed")
        return Installed(**found) if found else None

    def previous(self) -> Installed | None:
        """The release that was committed before it."""
        found = self._fact("previous")
        return Installed(**found) if found else None

    def refused(self) -> dict[str, str]:
        """Offers that were refused for good, with the reason."""
        with self._lock:
            return dict(self._db.execute("SELECT offer, reason FROM refused").fetchall())

    def move(self, state: str, reason: str, now: float, *, fetched: int | None = None) -> Position:
        """Enter a state; it is on the disk when this returns.

        Raises:
            IllegalTransition: the table does not allow the step.
        """
        old = self.position()
        check_transition(old.state, state)
        new = replace(old, state=state, reason=reason, since=now, bytes=old.bytes if fetched is None else fetched)
        self._write({"position": asdict(new)})
        return new

    def begin(self, offer: Offer, state: str, reason: str, now: float) -> Position:
        """Begin to update to an offer, or try again; counts the attempt."""
        old = self.position()
        check_transition(old.state, state)
        with self._lock:
            row = self._db.execute(
                "INSERT INTO attempts VALUES (?, 1) ON CONFLICT (offer) DO UPDATE SET number = number + 1 "
                "RETURNING number",
                (offer.key,),
            ).fetchone()
        same = old.release == offer.release and old.rollout == offer.rollout
        fetched = old.bytes if same else 0
        new = Position(state, offer.release, offer.rollout, reason, int(row[0]), now, fetched)
        self._write({"position": asdict(new)})
        return new

    def refuse(self, offer_key: str, state: str, reason: str, now: float) -> Position:
        """Enter a state and remember the offer as refused for good, in one transaction."""
        old = self.position()
        check_transition(old.state, state)
        new = replace(old, state=state, reason=reason, since=now)
        self._write({"position": asdict(new)}, refused=(offer_key, reason, now))
        return new

    def commit(self, installed: Installed, reason: str, now: float) -> Position:
        """Make a release the committed one and keep the one before it, in one transaction."""
        old, before = self.position(), self.committed()
        check_transition(old.state, COMMITTED)
        new = replace(old, state=COMMITTED, reason=reason, since=now)
        facts: dict[str, Any] = {"position": asdict(new), "committed": asdict(installed)}
        if before is not None and before.release != installed.release:
            facts["previous"] = asdict(before)
        self._write(facts)
        return new

    def fall_back(self, installed: Installed, reason: str, now: float) -> Position:
        """The committed release can no longer be loaded: the one before it is the committed one from now on."""
        new = Position(IDLE, installed.release, None, reason, 0, now)
        self._write({"position": asdict(new), "committed": asdict(installed), "previous": None})
        return new

    def _fact(self, name: str) -> Any:
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def _write(self, facts: Mapping[str, Any], refused: tuple[str, str, float] | None = None) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for name, value in facts.items():
                    self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))
                if refused is not None:
                    self._db.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", refused)
                    self._db.execute(
                        "DELETE FROM refused WHERE offer NOT IN (SELECT offer FROM refused ORDER BY at DESC LIMIT ?)",
                        (MOST_REFUSED,),
                    )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
