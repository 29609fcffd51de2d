"""Predictions of one release in a chunk of columns, not one object each: that is what makes keeping them cheap.

Where an id stands is looked up chunk by chunk, and a chunk makes its index when it is first asked: most predictions
never get a label, and they should not pay for one.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.ports import Chosen
from edgeloop.protocol import decode, encode
from edgeloop.records import dataclass

#: A chunk takes no more batches when it has so many rows, or bytes: rows of wide features are large.
CHUNK_ROWS, CHUNK_BYTES = 1024, 4 << 20
#: A smaller chunk stays open over a checkpoint and is written again with the next: fewer, larger rows in the store.
SEAL_ROWS, SEAL_BYTES = 256, 256 << 10
#: What a row takes besides its features, roughly.
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
    """Up to about `CHUNK_ROWS` rows or `CHUNK_BYTES`; batches are appended until it is sealed."""

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

    @property
    def full(self) -> bool:
        """Whether the next batch goes to another chunk."""
        return self.sealed or self.rows >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    def seal_if_large(self) -> None:
        """It is being written: one that is large enough is written no second time."""
        self.sealed = self.rows >= SEAL_ROWS or self.bytes >= SEAL_BYTES

    def append(self, batch: Batch) -> None:
        """Add a batch."""
        added = len(batch.predicted)
        if batch.segment != (self._segments[-1][1] if self._segments else ""):
            self._segments.append((self.rows, batch.segment))
        self._choose(
            # Features that all rows have are not kept twice.
            (self.rows + row, chosen if batch.features is None else chosen._replace(features=None))
            for row, chosen in batch.chosen.items()
        )
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
        chunk._choose(
            (int(row), Chosen(float(probability), None if kept is None else np.frombuffer(kept, "<f4")))
            for row, probability, kept in fields.get("chosen", ())
        )
        chunk.marks[:] = labelled
        chunk.stored_rows = rows
        chunk.seal_if_large()
        return chunk

    def _choose(self, rows: Iterable[tuple[int, Chosen]]) -> None:
        for row, chosen in rows:
            self.chosen[row] = chosen
            self.bytes += _ROW_BYTES + (0 if chosen.features is None else chosen.features.nbytes)


def _bytes(features: Array | None) -> bytes | None:
    return None if features is None else features.astype("<f4").tobytes()
