"""What the update machine remembers, durably: written before it is acted on."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_agent.updates.disk import Disk
from edge_agent.updates.rules import COMMITTED, IDLE, ROLLED_BACK, UNPROVEN, Offer, check_transition, offer_key
from edge_agent.updates.vouching import Floors, raised
from edgeloop.records import dataclass

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refused (offer TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tries (offer TEXT PRIMARY KEY, attempts INTEGER NOT NULL, ends INTEGER NOT NULL);
"""
#: Offers that are remembered as refused, and as tried; the oldest are forgotten first (by order, not by clock).
MOST_OFFERS = 1000


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
    """A release that was committed, what ran best here, the rollout that offered it, its path where it is signed."""

    release: str
    variant: str
    provider: str
    rollout: str | None = None
    target: str = ""


@dataclass(frozen=True)
class Life:
    """How agents on this data folder have ended.

    Attributes:
        running: an agent serves, or did when the power went.
        young: digest of the committed release while it is not settled yet, or None.
        ends: unclean ends of agents that served it since its commit.
    """

    running: bool = False
    young: str | None = None
    ends: int = 0


class UpdateStore:
    """``updates.db``: WAL, synchronous FULL, one connection; every write is on the disk when it returns."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        """Open the database, or make it.

        Args:
            path: of the file.
            disk: makes its folder.
        """
        (disk or Disk()).make_folder(path.parent)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA fullfsync=1")  # macOS: see updates.disk
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    # ── what is known ─────────────────────────────────────────────────────────────────────────

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

    def life(self) -> Life:
        """How agents have ended."""
        found = self._fact("life")
        return Life(**found) if found else Life()

    def left(self) -> str | None:
        """Digest of the release that a person has left, until another was offered."""
        found = self._fact("left")
        return None if found is None else str(found)

    def floors(self) -> Floors:
        """For each model the order below which no release of it is taken."""
        return {model: (order[0], order[1]) for model, order in (self._fact("floors") or {}).items()}

    def seen(self) -> dict[str, Any]:
        """Versions of signed metadata that were seen, as `edge_agent.trust.floors` has them."""
        return dict(self._fact("seen") or {})

    def see(self, seen: Mapping[str, Any]) -> None:
        """Remember them; they are on the disk when this returns."""
        self._write({"seen": dict(seen)})

    def refused(self) -> dict[str, str]:
        """Offers that were refused for good, with the reason."""
        with self._lock:
            return dict(self._db.execute("SELECT offer, reason FROM refused").fetchall())

    # ── the life cycle ────────────────────────────────────────────────────────────────────────

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

    def note(self, reason: str, now: float) -> Position:
        """Say what goes on in the present state."""
        new = replace(self.position(), reason=reason, since=now)
        self._write({"position": asdict(new)})
        return new

    def begin(self, offer: Offer, state: str, reason: str, now: float) -> Position:
        """Begin to update to an offer, or go on with it; only a new beginning counts as an attempt."""
        old = self.position()
        check_transition(old.state, state)
        same = old.release == offer.release and old.rollout == offer.rollout
        going_on = same and old.state not in (*UNPROVEN, COMMITTED, ROLLED_BACK, IDLE)
        attempt = old.attempt if going_on else self._tries(offer.key)[0] + 1
        new = Position(state, offer.release, offer.rollout, reason, attempt, now, old.bytes if same else 0)
        self._write({"position": asdict(new)}, tries=(offer.key, attempt, self._tries(offer.key)[1]))
        return new

    def refuse(self, offer_keys: Iterable[str], state: str, reason: str, now: float) -> Position:
        """Enter a state and remember offers as refused for good, in one transaction."""
        old = self.position()
        check_transition(old.state, state)
        new = replace(old, state=state, reason=reason, since=now)
        self._write({"position": asdict(new)}, refused=[(key, reason, now) for key in offer_keys])
        return new

    def commit(self, installed: Installed, reason: str, now: float) -> Position:
        """Make a release the committed one, keep the one before it and raise the model's floor, in one transaction."""
        old, before = self.position(), self.committed()
        check_transition(old.state, COMMITTED)
        new = replace(old, state=COMMITTED, reason=reason, since=now)
        facts = {
            "position": asdict(new),
            "committed": asdict(installed),
            "life": asdict(replace(self.life(), young=installed.release, ends=0)),
            "floors": raised(self.floors(), before.target if before is not None else "", installed.target),
        }
        if before is not None and before.release != installed.release:
            facts["previous"] = asdict(before)
        self._write(facts, tries=(offer_key(installed.release, installed.rollout), 0, 0))
        return new

    # ── ends and ways back ────────────────────────────────────────────────────────────────────

    def starts(self) -> int:
        """An agent starts: count the unclean end before it, if there was one; written before anything serves.

        Returns:
            Unclean ends so far: of the unproven offer where the machine stood at one, else of the committed release
            while it is not settled.
        """
        at, life = self.position(), self.life()
        ended = int(life.running)
        if at.state in UNPROVEN and at.release is not None:
            key = offer_key(at.release, at.rollout)
            attempts, ends = self._tries(key)
            self._write({"life": asdict(replace(life, running=True))}, tries=(key, attempts, ends + ended))
            return ends + ended
        ends = life.ends + ended if life.young is not None else 0
        self._write({"life": asdict(replace(life, running=True, ends=ends))})
        return ends

    def ends_in_order(self) -> None:
        """The agent was told to stop: its end is no fault of any release."""
        self._write({"life": asdict(replace(self.life(), running=False))})

    def settle(self) -> None:
        """The committed release has served for long enough: its ends are not counted any more."""
        self._write({"life": asdict(replace(self.life(), young=None, ends=0))})

    def go_back(self, reason: str, now: float, *, by_hand: bool) -> Position:
        """Leave the committed release for the one before it, in one transaction.

        Args:
            reason: a sentence for people.
            now: unix seconds.
            by_hand: a person did it: the release is not taken again before another was offered. Otherwise its offers
                are refused for good.

        Raises:
            LookupError: there is none before it.
        """
        committed, previous = self.committed(), self.previous()
        if committed is None or previous is None:
            raise LookupError("no release is kept to go back to")
        check_transition(self.position().state, ROLLED_BACK)
        attempt = self.position().attempt
        new = Position(ROLLED_BACK, committed.release, committed.rollout, reason, attempt, now)
        facts = {
            "position": asdict(new),
            "committed": asdict(previous),
            "previous": None,
            "life": asdict(replace(self.life(), young=None, ends=0)),
        }
        if by_hand:
            self._write({**facts, "left": committed.release})
        else:
            keys = dict.fromkeys((offer_key(committed.release, committed.rollout), offer_key(committed.release, None)))
            self._write(facts, refused=[(key, reason, now) for key in keys])
        return new

    def leave(self, release: str, state: str, reason: str, now: float) -> Position:
        """Enter a state because a person has left a release that was not committed yet, in one transaction."""
        old = self.position()
        check_transition(old.state, state)
        new = replace(old, state=state, reason=reason, since=now)
        self._write({"position": asdict(new), "left": release})
        return new

    def forget_left(self) -> None:
        """Another release was offered: the one that a person has left may be taken again."""
        self._write({"left": None})

    def fall_back(self, installed: Installed, reason: str, now: float) -> Position:
        """The committed release can no longer be loaded: the one before it is the committed one from now on."""
        new = Position(IDLE, installed.release, None, reason, 0, now)
        life = asdict(replace(self.life(), young=None, ends=0))
        self._write({"position": asdict(new), "committed": asdict(installed), "previous": None, "life": life})
        return new

    # ── SQL ───────────────────────────────────────────────────────────────────────────────────

    def _fact(self, name: str) -> Any:
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def _tries(self, key: str) -> tuple[int, int]:
        """Attempts and unclean ends of an offer."""
        with self._lock:
            row = self._db.execute("SELECT attempts, ends FROM tries WHERE offer = ?", (key,)).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def _write(
        self,
        facts: Mapping[str, Any],
        *,
        refused: Iterable[tuple[str, str, float]] = (),
        tries: tuple[str, int, int] | None = None,
    ) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for name, value in facts.items():
                    self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))
                self._db.executemany("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", refused)
                if tries is not None:
                    self._db.execute("INSERT OR REPLACE INTO tries VALUES (?, ?, ?)", tries)
                for table in ("refused", "tries"):
                    self._db.execute(
                        f"DELETE FROM {table} WHERE rowid <= (SELECT MAX(rowid) FROM {table}) - {MOST_OFFERS}"
                    )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
