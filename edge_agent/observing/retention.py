"""Recent predictions, kept so that a label that comes late still finds what it is about. Bounded in rows and bytes.

Predictions are kept in chunks of columns, not one object each: that is what makes keeping them cheap. Chunks are
written at each checkpoint and read again at start; whether a row has had its label is written with the window that
counted it. Where an id stands is looked up chunk by chunk, and a chunk makes its index when it is first asked: most
predictions never get a label, and they should not pay for one.
"""

from __future__ import annotations

import bisect
import dataclasses
import logging
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.observing.store import Store
from edge_agent.ports import Chosen
from edgeloop.protocol import ProtocolError, decode, encode
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

CHUNK_ROWS = 1024
# A smaller chunk stays open over a checkpoint and is written again with the next: fewer, larger rows in the store.
SEAL_ROWS = 256
MAX_ID_CHARACTERS = 256
# Features of 1,280 floats a row would make 8,192 rows 42 MB; the older half then has to go.
MAX_BYTES = 32 << 20
_ROW_BYTES = 100
_CHUNK_LIMIT = 1 << 30
#: Marks of a row: its label has come; it was drawn for an audit.
LABELLED, AUDITED = 1, 2

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Predictions of one release, one after the other.

    Attributes:
        ids: one id a request.
        counts: int64 [requests], rows of each request.
        predicted: int64 [rows], class index.
        confidence: float [rows].
        features: float [rows, F], or None for a model without features.
        segment: of all of them.
        audited: bool [rows], which were drawn for an audit; None: none.
        chosen: row → how it was chosen for the teacher, where it was.
    """

    ids: Sequence[str]
    counts: npt.NDArray[np.int64]
    predicted: Array
    confidence: Array
    features: Array | None
    segment: str = ""
    audited: Array | None = None
    chosen: Mapping[int, Chosen] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """One earlier prediction: a row of a chunk."""

    chunk: Chunk
    row: int

    @property
    def release(self) -> str:
        """Digest of the release that predicted."""
        return self.chunk.release

    @property
    def segment(self) -> str:
        """The segment that its prediction counted in."""
        return self.chunk.segment_of(self.row)

    @property
    def predicted(self) -> int:
        """The class index that was predicted."""
        return int(self.chunk.column("predicted")[self.row])

    @property
    def features(self) -> Array | None:
        """float32 [F], or None."""
        if self.chunk.has_features:
            found: Array = self.chunk.column("features")[self.row]
            return found
        chosen = self.chunk.chosen.get(self.row)
        return chosen.features if chosen is not None else None

    @property
    def probability(self) -> float | None:
        """Chance with which it was drawn for the teacher, or None: it was not."""
        chosen = self.chunk.chosen.get(self.row)
        return None if chosen is None else chosen.probability

    @property
    def labelled(self) -> bool:
        """Whether the label has come."""
        return bool(self.chunk.marks[self.row] & LABELLED)

    @property
    def audited(self) -> bool:
        """Whether it was drawn for an audit."""
        return bool(self.chunk.marks[self.row] & AUDITED)

    @property
    def confidence(self) -> float:
        """Of the class that was predicted."""
        return float(self.chunk.column("confidence")[self.row])


class Chunk:
    """Up to about ``CHUNK_ROWS`` rows; batches are appended until it is sealed."""

    def __init__(self, number: int, release: str) -> None:
        self.number = number
        self.release = release
        self.rows = 0
        self.bytes = 0
        self.sealed = False
        self.stored_rows = 0
        self.labels_changed = False
        #: Of each row: `LABELLED` and `AUDITED`; in the store they are the column ``labelled``.
        self.marks = bytearray()
        self.ids: list[str] = []
        self.has_features = False
        #: Rows that were drawn for the teacher; their features are in it where the chunk has none.
        self.chosen: dict[int, Chosen] = {}
        self._counts: list[npt.NDArray[np.int64]] = []
        self._parts: dict[str, list[Array]] = {"predicted": [], "confidence": [], "features": []}
        self._places: dict[str, tuple[int, int]] = {}
        self._indexed = 0
        #: Where a segment begins, and its name; rows before the first have none.
        self._segments: list[tuple[int, str]] = []

    @property
    def stored(self) -> bool:
        """Whether the store has all rows."""
        return self.stored_rows == self.rows

    def append(self, batch: Batch) -> None:
        """Add a batch."""
        added = len(batch.predicted)
        if batch.segment != (self._segments[-1][1] if self._segments else ""):
            self._segments.append((self.rows, batch.segment))
        for row, chosen in batch.chosen.items():
            kept = chosen.features if batch.features is None else None
            self.chosen[self.rows + row] = chosen._replace(features=kept)
            self.bytes += _ROW_BYTES + (0 if kept is None else kept.nbytes)
        self.rows += added
        self.ids.extend(batch.ids)
        self._counts.append(batch.counts)
        # No copy where the dtype is right: the recorder hands over arrays that nobody else keeps.
        self._parts["predicted"].append(np.asarray(batch.predicted, dtype=np.int32))
        self._parts["confidence"].append(np.asarray(batch.confidence, dtype=np.float32))
        if batch.features is not None:
            self.has_features = True
            self._parts["features"].append(np.asarray(batch.features, dtype=np.float32).reshape(added, -1))
        self.marks.extend(
            bytes(added) if batch.audited is None else (AUDITED * batch.audited).astype(np.uint8).tobytes()
        )
        width = batch.features[0].size * 4 if batch.features is not None and added else 0
        self.bytes += added * (width + _ROW_BYTES)

    def place(self, prediction_id: str) -> tuple[int, int] | None:
        """First row and number of rows of a request, or None; the later one where an id came twice."""
        if self._indexed < len(self.ids):
            counts = self.counts()
            starts, new = np.cumsum(counts) - counts, slice(self._indexed, None)
            rows = zip(starts[new].tolist(), counts[new].tolist(), strict=True)
            self._places.update(zip(self.ids[new], rows, strict=True))
            self._places.pop("", None)
            self._indexed = len(self.ids)
        return self._places.get(prediction_id)

    def request_of(self, row: int) -> tuple[str, int]:
        """The id of the request that a row is of, and the row's number in it."""
        ends = np.cumsum(self.counts())
        request = int(np.searchsorted(ends, row, side="right"))
        return self.ids[request], row - int(ends[request] - self.counts()[request])

    def segment_of(self, row: int) -> str:
        """The segment of a row."""
        found = bisect.bisect_right(self._segments, row, key=itemgetter(0))
        return self._segments[found - 1][1] if found else ""

    def column(self, name: str) -> Array:
        """A column of all rows; parts are joined once and stay joined."""
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts)]
        return parts[0]

    def counts(self) -> npt.NDArray[np.int64]:
        """Rows of each request."""
        return np.concatenate(self._counts)

    def to_bytes(self) -> bytes:
        """All but ``labelled``, for the store."""
        features = self.column("features").astype("<f4").tobytes() if self.has_features else None
        fields = {
            "ids": "\0".join(self.ids).encode("utf-8", "surrogatepass"),
            "counts": self.counts().astype("<i8").tobytes(),
            "predicted": self.column("predicted").astype("<i4").tobytes(),
            "confidence": self.column("confidence").astype("<f4").tobytes(),
            "features": features,
            "segments": [list(one) for one in self._segments],
            "chosen": [[row, found.probability, _bytes(found.features)] for row, found in self.chosen.items()],
        }
        return encode(fields, _CHUNK_LIMIT)

    @classmethod
    def from_bytes(cls, number: int, release: str, body: bytes, labelled: bytes) -> Chunk:
        """The chunk that ``to_bytes`` wrote.

        Raises:
            ValueError: the bytes are damaged.
        """
        fields = decode(body, _CHUNK_LIMIT)
        predicted = np.frombuffer(fields["predicted"], "<i4")
        rows = len(predicted)
        features = fields["features"]
        batch = Batch(
            ids=fields["ids"].decode("utf-8", "surrogatepass").split("\0"),
            counts=np.frombuffer(fields["counts"], "<i8"),
            predicted=predicted,
            confidence=np.frombuffer(fields["confidence"], "<f4"),
            features=None if features is None else np.frombuffer(features, "<f4").reshape(rows, -1),
        )
        lengths = {rows, len(batch.confidence), len(labelled), int(batch.counts.sum())}
        if len(lengths) != 1 or len(batch.ids) != len(batch.counts) or rows == 0:
            raise ValueError("columns of different lengths")
        chunk = cls(number, release)
        chunk.append(batch)
        chunk._segments = [(int(start), str(name)) for start, name in fields.get("segments", ())]
        chunk.chosen = {
            int(row): Chosen(float(probability), None if kept is None else np.frombuffer(kept, "<f4"))
            for row, probability, kept in fields.get("chosen", ())
        }
        chunk.marks[:] = labelled
        chunk.stored_rows = rows
        chunk.sealed = rows >= SEAL_ROWS
        return chunk


class Retention:
    """The memory of recent predictions. Not thread-safe: the recorder's lock guards it.

    Args:
        keep_rows: rows that are kept at least; up to ``CHUNK_ROWS`` more may be, 0 keeps none.
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
        if chunk is None or not alike or chunk.sealed or chunk.rows >= CHUNK_ROWS:
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
            chunk.sealed = chunk.rows >= SEAL_ROWS
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
        self._dropped = [number for number in self._dropped if number not in set(changes.dropped)]

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


def _bytes(features: Array | None) -> bytes | None:
    return None if features is None else features.astype("<f4").tobytes()


def _storable(ids: Sequence[str]) -> Sequence[str]:
    """The ids, with those that cannot be kept (too long, or with the separator in them) replaced by ""."""
    together = "\0".join(ids)
    # One look at all of them, for every batch; such ids hardly ever come. Long ones only matter when they are many.
    if together.count("\0") == len(ids) - 1 and len(together) <= 64 * len(ids):
        return ids
    return ["" if "\0" in name or len(name) > MAX_ID_CHARACTERS else name for name in ids]


@dataclass(frozen=True)
class Changes:
    """What one checkpoint writes of the kept predictions."""

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
