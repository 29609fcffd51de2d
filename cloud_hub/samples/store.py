"""What is kept of samples: a row and a file each. A file is there before its row, and goes before the row does."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from cloud_hub.errors import NotFound, StorageFull
from cloud_hub.records.database import Database, chunks
from cloud_hub.records.sample_tables import sample_deletions as deletions
from cloud_hub.records.sample_tables import samples as table
from cloud_hub.records.teaching_tables import escalations
from cloud_hub.samples.files import SampleFiles, closed
from edgeloop.protocol import Sample

log = logging.getLogger(__name__)

#: Rows that are forgotten in one transaction, so that ingest waits for the database for a moment only.
FORGOTTEN_AT_ONCE = 500
#: One device's part of all bytes that are kept, at most: no device can fill the hub for the others.
SHARE_OF_ONE = 0.1
DEVICE, TEACHER, PERSON = "device", "teacher", "person"
"""Who gave a label: feedback on the device, a teacher, somebody in the cloud. A person's counts before a device's, and
that before a teacher's."""


@dataclass(frozen=True)
class SampleRow:
    """One sample, without its inputs.

    Attributes:
        number: of the hub's.
        device: that sent it.
        epoch: of the device's memory.
        sequence: of the sample in it.
        channel: that the device followed.
        release: digest of the release that answered.
        prediction: id of the prediction.
        row: in its request.
        segment: of the windows, or "".
        form: what travelled.
        strategy: why it was taken.
        probability: chance with which it was drawn.
        predicted: class that the device answered.
        confidence: of that answer.
        taken: unix seconds by the device's clock.
        received: unix seconds.
        expires: unix seconds at which it is deleted, or None.
        label: class index, or None.
        source: who gave it, or "".
        bytes: of its file.
        sha256: of its file.
        content: sha256 of its inputs.
    """

    number: int
    device: str
    epoch: int
    sequence: int
    channel: str
    release: str
    prediction: str
    row: int
    segment: str
    form: str
    strategy: str
    probability: float
    predicted: int
    confidence: float
    taken: float
    received: float
    expires: float | None
    label: int | None
    source: str
    bytes: int
    sha256: str
    content: str


@dataclass(frozen=True)
class Wanted:
    """Which samples are meant; None: any.

    Attributes:
        device: of this one.
        channel: on this one.
        since: taken at this time or later, unix seconds by the device's clock.
        until: taken before.
        labelled: with, or without, a label.
    """

    device: str | None = None
    channel: str | None = None
    since: float | None = None
    until: float | None = None
    labelled: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As the database takes them."""
        found: list[ColumnElement[bool]] = []
        if self.device is not None:
            found.append(table.c.device == self.device)
        if self.channel is not None:
            found.append(table.c.channel == self.channel)
        if self.since is not None:
            found.append(table.c.taken >= self.since)
        if self.until is not None:
            found.append(table.c.taken < self.until)
        if self.labelled is not None:
            found.append(_LABEL.is_not(None) if self.labelled else _LABEL.is_(None))
        return found


_SAME_ROW = and_(
    escalations.c.device == table.c.device,
    escalations.c.prediction == table.c.prediction,
    escalations.c.row == table.c.row,
    escalations.c.label.is_not(None),
    escalations.c.learn.is_(True),
)
_TAUGHT = select(escalations.c.label).where(_SAME_ROW).scalar_subquery()
_LABEL = func.coalesce(table.c.label, _TAUGHT)
_COLUMNS = [column for column in table.c if column.name not in ("label", "source")]


class SampleStore:
    """The samples of a hub.

    Args:
        db: the records.
        files: the inputs.
        most_bytes: of all files; beyond it none is taken.
        clock: unix seconds.
    """

    def __init__(
        self, db: Database, files: SampleFiles, *, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self.files, self._most_bytes, self._clock = db, files, most_bytes, clock
        self._bytes = self._count()

    @property
    def bytes(self) -> int:
        """Of all files."""
        return self._bytes.total()

    def add(self, sample: Sample, label: int | None, keep_s: float | None) -> bool:
        """Keep a sample; False where it is here already, or was deleted on somebody's request.

        Raises:
            StorageFull: there is no room for it; the device may send it again.
        """
        now = self._clock()
        with self._db.read() as connection:
            if self._known(connection, sample) or was_deleted(connection, sample):
                return False
        body, sha256, content = closed(sample.tensors)
        file = {"bytes": len(body), "sha256": sha256, "content": content}
        self._check_room(sample.device, len(body))
        self.files.write(sha256, body)  # before the transaction: nobody waits for the disk with it
        kept = False
        try:
            with self._db.begin() as connection:
                if not (self._known(connection, sample) or was_deleted(connection, sample)):
                    connection.execute(table.insert().values(**_values(sample, label, now, keep_s), **file))
                    kept = True
        finally:
            if not kept:
                self.files.delete([sha256])
        if kept:
            self._bytes[sample.device] += len(body)
        return kept

    def feedback(self, device: str, prediction: str, row: int, label: int) -> bool:
        """A device tells the true label of a prediction; returns whether a sample of it is here."""
        mine = and_(table.c.device == device, table.c.prediction == prediction, table.c.row == row)
        with self._db.begin() as connection:
            here = connection.execute(select(table.c.number).where(mine)).first() is not None
            change = update(table).where(mine, or_(table.c.label.is_(None), table.c.source != PERSON))
            connection.execute(change.values(label=label, source=DEVICE))
        return here

    def label(self, connection: Connection, number: int, label: int | None) -> None:
        """Somebody in the cloud says what is right, in the caller's transaction; None takes it back."""
        source = "" if label is None else PERSON
        connection.execute(update(table).where(table.c.number == number).values(label=label, source=source))

    def get(self, number: int) -> SampleRow:
        """One sample; raises `NotFound`."""
        found = self._rows(table.c.number == number, limit=1)
        if not found:
            raise NotFound(f"there is no sample {number}", "it may have been deleted, or was kept long enough")
        return found[0]

    def list(self, wanted: Wanted, *, after: int = 0, limit: int = 200) -> Sequence[SampleRow]:
        """Samples with a number above ``after``, in the order in which they came."""
        return self._rows(*wanted.conditions(), table.c.number > after, limit=limit)

    def count(self, wanted: Wanted) -> int:
        """How many there are."""
        query = select(func.count()).select_from(table).where(*wanted.conditions())
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def totals(self, wanted: Wanted) -> Sequence[dict[str, Any]]:
        """How many there are of each channel and strategy, with and without a label."""
        columns = (table.c.channel, table.c.strategy)
        query = select(
            *columns,
            func.count().label("samples"),
            func.count(_LABEL).label("labelled"),
            func.sum(table.c.bytes).label("bytes"),
            func.min(table.c.taken).label("since"),
            func.max(table.c.taken).label("until"),
        )
        query = query.where(*wanted.conditions()).group_by(*columns).order_by(*columns)
        with self._db.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def forget(self) -> int:
        """Delete a part of what was kept long enough; returns how many."""
        with self._db.begin() as connection:
            query = select(table.c.number, table.c.sha256).where(table.c.expires <= self._clock())
            old = connection.execute(query.order_by(table.c.expires).limit(FORGOTTEN_AT_ONCE)).all()
            self.remove(connection, [(row.number, row.sha256) for row in old])
        if old:
            log.info("%d samples were kept long enough, and are deleted", len(old))
        return len(old)

    def tidy(self) -> None:
        """Delete files without a row: of a hub that was killed between the two. At the start, before anything comes."""
        with self._db.read() as connection:
            known = set(connection.execute(select(table.c.sha256)).scalars())
        for name, path in self.files.all():
            if name not in known:
                path.unlink(missing_ok=True)

    def remove(self, connection: Connection, some: Sequence[tuple[int, str]]) -> None:
        """Delete files and rows of samples (number, sha256), in the caller's transaction: files first.

        Raises:
            StorageFull: a file cannot be deleted; the transaction has to be rolled back.
        """
        if not some:
            return
        self.files.delete(sha256 for _, sha256 in some)
        for part in chunks([number for number, _ in some]):
            connection.execute(delete(table).where(table.c.number.in_(part)))
        self._db.after_commit(self._recount)

    def _recount(self) -> None:
        self._bytes = self._count()

    def _rows(self, *conditions: ColumnElement[bool], limit: int) -> Sequence[SampleRow]:
        query = select(*_COLUMNS, table.c.source.label("own"), _LABEL.label("label"))
        query = query.where(*conditions).order_by(table.c.number).limit(limit)
        with self._db.read() as connection:
            found = []
            for row in connection.execute(query).mappings():
                values = dict(row)
                own = values.pop("own")
                found.append(SampleRow(**values, source=own or (TEACHER if values["label"] is not None else "")))
        return found

    def _known(self, connection: Connection, sample: Sample) -> bool:
        same = and_(table.c.device == sample.device, table.c.epoch == sample.epoch, table.c.sequence == sample.number)
        return connection.execute(select(table.c.number).where(same)).first() is not None

    def _check_room(self, device: str, size: int) -> None:
        if (
            self._bytes.total() + size > self._most_bytes
            or self._bytes[device] + size > SHARE_OF_ONE * self._most_bytes
        ):
            raise StorageFull("there is no room for samples", "raise samples_max_bytes of the hub, or delete some")

    def _count(self) -> Counter[str]:
        """Bytes of each device."""
        query = select(table.c.device, func.sum(table.c.bytes)).group_by(table.c.device)
        with self._db.read() as connection:
            return Counter({device: int(size) for device, size in connection.execute(query)})


def _values(sample: Sample, label: int | None, now: float, keep_s: float | None) -> dict[str, Any]:
    return {
        "device": sample.device,
        "epoch": sample.epoch,
        "sequence": sample.number,
        "channel": sample.channel,
        "release": sample.release,
        "prediction": sample.id,
        "row": sample.index,
        "segment": sample.segment,
        "form": sample.form,
        "strategy": sample.strategy,
        "probability": sample.probability,
        "predicted": sample.predicted,
        "confidence": sample.confidence,
        "taken": sample.taken,
        "received": now,
        "expires": None if keep_s is None else now + keep_s,
        "label": label,
        "source": "" if label is None else DEVICE,
    }


def was_deleted(connection: Connection, sample: Sample) -> bool:
    """Whether somebody has had deleted what this sample is of."""
    columns = deletions.c
    covers = and_(
        or_(columns.device.is_(None), columns.device == sample.device),
        or_(columns.channel.is_(None), columns.channel == sample.channel),
        or_(columns.since.is_(None), columns.since <= sample.taken),
        columns.until > sample.taken,
    )
    return connection.execute(select(columns.id).where(covers).limit(1)).first() is not None
