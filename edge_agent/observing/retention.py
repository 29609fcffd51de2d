"""Recent predictions, kept so that a label that comes late still finds what it is about. Bounded in rows and bytes.

Chunks of them are written at each checkpoint and read again at start; whether a row has had its label is written with
the window that counted it.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
from collections import deque
from collections.abc import Sequence

import numpy as np

from edge_agent.observing.chunks import AUDITED, LABELLED, Batch, Chunk, Found
from edge_agent.observing.store import Store
from edgeloop.protocol import ProtocolError
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

MAX_ID_CHARACTERS = 256
#: Features of 1,280 floats a row would make 8,192 rows 42 MB; the older half then has to go.
MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Changes:
    """What one checkpoint writes of the kept predictions.

    Attributes:
        fresh: chunks with rows that the store does not have; their bytes, and the marks of their rows.
        relabelled: chunks of which the store lacks marks alone, and these.
        dropped: numbers of chunks that are not kept any more.
    """

    fresh: list[tuple[Chunk, bytes, bytes]]
    relabelled: list[tuple[Chunk, bytes]]
    dropped: list[int]

    def __bool__(self) -> bool:
        return bool(self.fresh or self.relabelled or self.dropped)

    def write(self, db: sqlite3.Connection) -> None:
        """Write inside the caller's transaction."""
        for chunk, body, labelled in self.fresh:
            row = (chunk.number, chunk.release, body, labelled)
            db.execute("INSERT OR REPLACE INTO prediction VALUES (?, ?, ?, ?)", row)
        for chunk, labelled in self.relabelled:
            db.execute("UPDATE prediction SET labelled = ? WHERE chunk = ?", (labelled, chunk.number))
        for number in self.dropped:
            db.execute("DELETE FROM prediction WHERE chunk = ?", (number,))


class Retention:
    """The memory of recent predictions. Not thread-safe: the recorder's lock guards it.

    Args:
        keep_rows: rows that are kept at least; up to a chunk more may be, 0 keeps none.
    """

    def __init__(self, keep_rows: int) -> None:
        self._keep_rows = keep_rows
        self._chunks: deque[Chunk] = deque()
        self._dropped: list[int] = []
        self._next_number = 1
        self.rows = 0
        self._bytes = 0

    def add(self, release: str, batch: Batch) -> None:
        """Keep a batch; an id that comes again means the newer prediction from now on."""
        if self._keep_rows <= 0 or not len(batch.predicted):
            return
        ids = _storable(batch.ids)
        if ids is not batch.ids:
            batch = dataclasses.replace(batch, ids=ids)
        chunk = self._chunks[-1] if self._chunks else None
        alike = chunk is not None and chunk.release == release and chunk.has_features == (batch.features is not None)
        if chunk is None or not alike or chunk.full:
            chunk = self._new_chunk(release)
        before = chunk.bytes
        chunk.append(batch)
        self.rows += len(batch.predicted)
        self._bytes += chunk.bytes - before
        self._drop_old()

    def find(self, prediction_id: str, row: int) -> Found | str | None:
        """The prediction; None when it is not kept, or a sentence when its request had no such row."""
        for chunk in reversed(self._chunks):  # the newest first: it has the prediction that an id means now
            if (place := chunk.place(prediction_id)) is not None:
                start, count = place
                if not 0 <= row < count:
                    return f"index {row} is outside the request's batch of {count}"
                return Found(chunk, start + row)
        return None

    def rows_of(self, prediction_id: str) -> list[Found]:
        """Every row of an earlier request, in order; none where it is not kept."""
        for chunk in reversed(self._chunks):
            if (place := chunk.place(prediction_id)) is not None:
                return [Found(chunk, row) for row in range(place[0], sum(place))]
        return []

    def open_audits(self, most: int) -> list[Found]:
        """Predictions that were drawn for an audit and have no label yet, the newest first, ``most`` of them."""
        found: list[Found] = []
        for chunk in reversed(self._chunks):
            rows = np.flatnonzero(np.frombuffer(bytes(chunk.marks), np.uint8) == AUDITED)[::-1]
            found += [Found(chunk, int(row)) for row in rows[: most - len(found)]]
            if len(found) >= most:
                break
        return found

    def mark(self, found: Found) -> None:
        """Note that the label has come; it is written at the next checkpoint."""
        found.chunk.marks[found.row] |= LABELLED
        found.chunk.labels_changed = True

    def prepare(self) -> Changes:
        """What the store does not have yet; :meth:`written` or :meth:`not_written` has to follow."""
        fresh = [chunk for chunk in self._chunks if not chunk.stored]
        relabelled = [chunk for chunk in self._chunks if chunk.stored and chunk.labels_changed]
        for chunk in fresh:
            chunk.seal_if_large()
        for chunk in (*fresh, *relabelled):
            chunk.labels_changed = False
        return Changes(
            fresh=[(chunk, chunk.to_bytes(), bytes(chunk.marks)) for chunk in fresh],
            relabelled=[(chunk, bytes(chunk.marks)) for chunk in relabelled],
            dropped=list(self._dropped),
        )

    def load(self, store: Store) -> None:
        """Read what an earlier run has kept; a chunk that is damaged is left out."""
        for number, release, body, labelled in store.rows("SELECT * FROM prediction ORDER BY chunk"):
            self._next_number = number + 1
            try:
                chunk = Chunk.from_bytes(number, release, body, labelled)
            except (ProtocolError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("kept predictions %d are damaged (%s); labels for them will be unknown", number, error)
                self._dropped.append(number)
                continue
            self._chunks.append(chunk)
            self.rows += chunk.rows
            self._bytes += chunk.bytes
        self._drop_old()

    def written(self, changes: Changes) -> None:
        """The store has what :meth:`prepare` gave."""
        for chunk, _, labelled in changes.fresh:
            chunk.stored_rows = len(labelled)
        gone = set(changes.dropped)
        self._dropped = [number for number in self._dropped if number not in gone]

    def not_written(self, changes: Changes) -> None:
        """The store does not have it; the next checkpoint tries again."""
        for chunk, _ in changes.relabelled:
            chunk.labels_changed = True

    def _new_chunk(self, release: str) -> Chunk:
        chunk = Chunk(self._next_number, release)
        self._next_number += 1
        self._chunks.append(chunk)
        return chunk

    def _drop_old(self) -> None:
        while len(self._chunks) > 1:
            oldest = self._chunks[0]
            if self.rows - oldest.rows < self._keep_rows and self._bytes <= MAX_BYTES:
                return
            self._chunks.popleft()
            self.rows -= oldest.rows
            self._bytes -= oldest.bytes
            self._dropped.append(oldest.number)


def _storable(ids: Sequence[str]) -> Sequence[str]:
    """The ids, with those that cannot be kept (too long, or with the separator in them) replaced by ""."""
    together = "\0".join(ids)
    # One look at all of them, for every batch; such ids hardly ever come. Long ones only matter when they are many.
    if together.count("\0") == len(ids) - 1 and len(together) <= 64 * len(ids):
        return ids
    return ["" if "\0" in name or len(name) > MAX_ID_CHARACTERS else name for name in ids]
