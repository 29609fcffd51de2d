"""Deleting what a device sent, on somebody's request, with a proof that it was done and of what was deleted.

Files go first, then, in one transaction, their rows, and an entry in the hash-chained audit log that has the SHA-256
of the list of what was deleted. The list lies beside: device, numbers, and the SHA-256 of each file, which tells
nothing of what was in it, since its salt went with it. `verify` holds audit log, lists, records and disk to one
another.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select

from cloud_hub.access import audit
from cloud_hub.blobs import storage_error
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records.access_tables import audit_log
from cloud_hub.records.database import Database, chunks
from cloud_hub.records.sample_tables import sample_deletions as table
from cloud_hub.records.sample_tables import samples
from cloud_hub.records.teaching_tables import escalation_inputs, escalations
from cloud_hub.samples.store import SampleStore, Wanted
from edgeloop.whole_files import make_private_folder, write_whole

#: The kind of change in the audit log.
WHAT = "samples.delete"


@dataclass(frozen=True)
class Deletion:
    """What was deleted.

    Attributes:
        id: of the deletion.
        device: of this one; None: of all.
        channel: on this one; None: on all.
        since: taken at this time or later, unix seconds; None: at any time.
        until: taken before.
        at: when it was deleted, unix seconds.
        count: samples, and inputs of escalations, that were deleted.
        bytes: of them.
        list_sha256: of the list of them.
    """

    id: str
    device: str | None
    channel: str | None
    since: float | None
    until: float
    at: float
    count: int
    bytes: int
    list_sha256: str


@dataclass(frozen=True)
class Checked:
    """What verifying found.

    Attributes:
        deletions: that hold.
        samples: that they deleted.
        problems: sentences; none where all holds.
    """

    deletions: int
    samples: int
    problems: tuple[str, ...]


class Deletions:
    """Deletes, and proves it.

    Args:
        db: the records.
        store: of samples.
        folder: of the lists; is made where it is missing.
        clock: unix seconds.
    """

    def __init__(
        self, db: Database, store: SampleStore, folder: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self._store, self._folder, self._clock = db, store, folder, clock
        make_private_folder(folder)

    def delete(self, wanted: Wanted) -> Deletion:
        """Delete samples, and what the hub still has of escalated inputs, of a device, a channel, a time, or all of it.

        Whatever of it is still on its way is not kept any more.

        Args:
            wanted: which; without ``until`` all that was taken until now.

        Raises:
            BadRequest: it means everything of everybody.
            StorageFull: a file cannot be deleted, or the list not written; nothing is said to have been deleted.
        """
        now = self._clock()
        if wanted.device is None and wanted.channel is None and wanted.since is None and wanted.until is None:
            raise BadRequest("this would delete everything of everybody", "say a device, a channel, since or until")
        with self._db.begin() as connection:
            query = select(samples).where(*wanted.conditions()).order_by(samples.c.number)
            rows = connection.execute(query).all()
            lines = [_line(device=r.device, epoch=r.epoch, number=r.sequence, sha256=r.sha256) for r in rows]
            inputs = _escalated(connection, wanted)
            lines += [_line(device=device, prediction=prediction, row=row) for _, device, prediction, row, _ in inputs]
            listed = "".join(lines).encode()
            done = Deletion(
                id=os.urandom(8).hex(),
                device=wanted.device,
                channel=wanted.channel,
                since=wanted.since,
                # A device's clock may be ahead of ours: what it has sent is gone, and does not come again.
                until=max([now, *(row.taken + 1 for row in rows)]) if wanted.until is None else wanted.until,
                at=now,
                count=len(lines),
                bytes=sum(row.bytes for row in rows) + sum(size for *_, size in inputs),
                list_sha256=hashlib.sha256(listed).hexdigest(),
            )
            try:
                write_whole(list_path(self._folder, done.id), listed)
            except OSError as error:
                raise storage_error(error, "the list of what is deleted") from error
            self._store.remove(connection, [(row.number, row.sha256) for row in rows])
            for part in chunks([number for number, *_ in inputs]):
                connection.execute(delete(escalation_inputs).where(escalation_inputs.c.number.in_(part)))
            connection.execute(table.insert().values(**vars(done)))
            audit.changed(connection, WHAT, vars(done), None, about=f"samples/{done.id}", at=now)
        return done

    def all(self) -> Sequence[Deletion]:
        """What was deleted, the newest first."""
        with self._db.read() as connection:
            return [Deletion(**row) for row in connection.execute(select(table).order_by(table.c.at.desc())).mappings()]

    def listed(self, deletion: str) -> bytes:
        """The list of what was deleted, a line of JSON each; raises `NotFound`."""
        with self._db.read() as connection:
            if connection.execute(select(table.c.id).where(table.c.id == deletion)).first() is None:
                raise NotFound(f"there is no deletion {deletion[:32]!r}", "GET /api/v1/samples/deletions lists them")
        try:
            return list_path(self._folder, deletion).read_bytes()
        except OSError as error:
            raise NotFound(f"the list of the deletion {deletion} is gone", "cloud-hub samples verify") from error


def verify(db: Database, store: SampleStore, folder: Path) -> Checked:
    """Hold every deletion to the audit log, its list, the records and the disk; it changes nothing.

    Args:
        db: the records.
        store: of samples.
        folder: of the lists.
    """
    with db.read() as connection:
        verdict = audit.verify(connection)
        problems = [f"the audit log does not hold: {verdict.problem}"] if verdict.problem else []
        query = select(audit_log).where(audit_log.c.what == WHAT).order_by(audit_log.c.number)
        said = {row.about: json.loads(row.before_json) for row in connection.execute(query)}
        recorded = {f"samples/{row['id']}": dict(row) for row in connection.execute(select(table)).mappings()}
        kept = {
            (row.device, row.epoch, row.sequence)
            for row in connection.execute(select(samples.c.device, samples.c.epoch, samples.c.sequence))
        }
    deleted = 0
    for about in sorted({*said, *recorded}):
        if about not in said or said[about] != recorded.get(about):
            problems.append(f"{about}: the audit log and the record of the deletion are not the same")
            continue
        found = said[about]
        try:
            listed = list_path(folder, found["id"]).read_bytes()
        except OSError:
            problems.append(f"{about}: its list is gone")
            continue
        if hashlib.sha256(listed).hexdigest() != found["list_sha256"]:
            problems.append(f"{about}: its list was changed after it was written")
            continue
        for line in map(json.loads, listed.splitlines()):
            deleted += 1
            if (line["device"], line.get("epoch"), line.get("number")) in kept:
                problems.append(f"{about}: a sample of {line['device']} that was deleted is in the records")
            if "sha256" in line and store.files.path(line["sha256"]).exists():
                problems.append(f"{about}: the file {line['sha256']} that was deleted is on the disk")
    return Checked(len(said), deleted, tuple(problems))


def list_path(folder: Path, deletion: str) -> Path:
    """Where the list of a deletion is."""
    return folder / f"{deletion}.jsonl"


def _escalated(connection: Connection, wanted: Wanted) -> Sequence[tuple[int, str, str, int, int]]:
    """(number, device, prediction, row, bytes) of escalations whose inputs are kept; their time is when they came."""
    columns = escalations.c
    kept = escalation_inputs.c.number
    query = select(columns.number, columns.device, columns.prediction, columns.row, columns.bytes)
    query = query.join(escalation_inputs, kept == columns.number).order_by(columns.number)
    if wanted.device is not None:
        query = query.where(columns.device == wanted.device)
    if wanted.channel is not None:
        query = query.where(columns.channel == wanted.channel)
    if wanted.since is not None:
        query = query.where(columns.received >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.received < wanted.until)
    return [tuple(row) for row in connection.execute(query)]


def _line(**facts: Any) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")) + "\n"
