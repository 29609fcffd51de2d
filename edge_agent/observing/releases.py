"""What observing remembers of a release, so that its windows and labels make sense when it is no longer loaded."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3

from edge_agent.observing.store import Store
from edgeloop.insights import WindowSchema
from edgeloop.records import dataclass


@dataclass(frozen=True)
class ReleaseFacts:
    """Shape of the windows, the names of the classes in order, and the longest feature vector in private sums."""

    schema: WindowSchema
    labels: tuple[str, ...]
    clip: float | None = None


_NEEDED = "SELECT release FROM outbox UNION SELECT release FROM open_window UNION SELECT release FROM prediction"


class KnownReleases:
    """Digest → facts, remembered in the store while windows or predictions of the release are in it.

    Attributes:
        private: whether features go into sums clipped, so that noise can hide any one of them.
    """

    def __init__(self, store: Store) -> None:
        self.private = False
        self._facts: dict[str, ReleaseFacts] = {}
        self._stored: set[str] = set()
        # A fleet has a new release every day, and some have thousands of labels.
        if store.rows(f"SELECT 1 FROM release WHERE digest NOT IN ({_NEEDED}) LIMIT 1"):
            with store.transaction() as db:
                db.execute(f"DELETE FROM release WHERE digest NOT IN ({_NEEDED})")
        for digest, text in store.rows("SELECT digest, facts FROM release"):
            facts = json.loads(text)
            self._facts[digest] = ReleaseFacts(
                WindowSchema(**facts["schema"]), tuple(facts["labels"]), facts.get("clip")
            )
            self._stored.add(digest)

    def add(self, digest: str, facts: ReleaseFacts) -> None:
        """Remember a release in memory; :meth:`save` writes it."""
        self._facts.setdefault(digest, facts)

    def save(self, db: sqlite3.Connection, digest: str) -> None:
        """Write a release inside the caller's transaction, before a row that refers to it."""
        if digest in self._stored:
            return
        facts = self._facts[digest]
        text = json.dumps({"schema": dataclasses.asdict(facts.schema), "labels": facts.labels, "clip": facts.clip})
        # The transaction may still fail, so the row is not taken for stored until a start has read it.
        db.execute("INSERT OR IGNORE INTO release VALUES (?, ?)", (digest, text))

    def get(self, digest: str) -> ReleaseFacts | None:
        """The facts of a release, or None when it was never observed."""
        return self._facts.get(digest)

    def clip_of(self, release: str) -> float:
        """Longest feature vector in the sums; infinity for any.

        As it was remembered first: what a window's sums were clipped at has to be known when it leaves.
        """
        facts = self._facts.get(release)
        return math.inf if not self.private or facts is None or facts.clip is None else facts.clip
