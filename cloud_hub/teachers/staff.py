"""The teachers of a hub: their settings in the records, and the desk of each, made when the first case comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row, select

from cloud_hub.access import audit
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records.database import Database
from cloud_hub.records.teaching_tables import teachers as table
from cloud_hub.teachers.desk import Desk, DeskState
from cloud_hub.teachers.port import Teacher
from cloud_hub.teachers.specs import ANY_SPEC, MachineSpec, PersonSpec, TeacherSpec
from edgeloop.protocol import ProtocolError, check_name

Hire = Callable[[str, MachineSpec], Teacher]
"""Makes a teacher of its name and settings; raises `TeacherError`."""


@dataclass(frozen=True)
class TeacherRow:
    """A teacher.

    Attributes:
        name: by which channels' policies name it.
        spec: what it is made of.
        created: unix seconds.
        changed: unix seconds.
    """

    name: str
    spec: TeacherSpec
    created: float
    changed: float


class Staff:
    """The teachers.

    Args:
        db: the records.
        hire: makes a teacher.
        most: cases that wait at one desk, at most.
        most_bytes: bytes that wait at one desk, at most.
        clock: unix seconds.
    """

    def __init__(
        self, db: Database, hire: Hire, *, most: int, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self._hire, self._most, self._most_bytes, self._clock = db, hire, most, most_bytes, clock
        self._lock = threading.Lock()
        self._desks: dict[str, Desk] = {}
        self._closed = False
        with db.read() as connection:
            self._rows = {row.name: _row(row) for row in connection.execute(select(table))}

    def all(self) -> list[TeacherRow]:
        """Every teacher by name."""
        with self._lock:
            return [self._rows[name] for name in sorted(self._rows)]

    def get(self, name: str) -> TeacherRow:
        """One teacher; raises `NotFound`."""
        if (found := self.find(name)) is None:
            raise NotFound(f"there is no teacher {name[:80]!r}", "GET /api/v1/teachers lists them")
        return found

    def find(self, name: str) -> TeacherRow | None:
        """One teacher, or None."""
        with self._lock:
            return self._rows.get(name)

    def put(self, name: str, spec: Any) -> TeacherRow:
        """Make a teacher, or change one: cases that wait for it go on to the next teacher.

        Args:
            name: letters, digits and ``._-``.
            spec: a `TeacherSpec`, or what its fields are made of.

        Raises:
            BadRequest: name or settings are not what they have to be.
        """
        try:
            check_name(name, "teacher")
            parsed = ANY_SPEC.validate_python(spec)
        except (ProtocolError, ValidationError) as error:
            raise BadRequest(f"the teacher is refused: {error}"[:2000], "see docs/reference/teachers.md") from error
        now, before = self._clock(), self.find(name)
        values = {"spec_json": parsed.model_dump_json(), "changed": now}
        with self._db.begin() as connection:
            if before is None:
                connection.execute(table.insert().values(name=name, created=now, **values))
            else:
                connection.execute(table.update().where(table.c.name == name).values(**values))
            audit.changed(
                connection, "teacher.put", None if before is None else _plain(before), parsed.model_dump(mode="json"),
                about=name, at=now,
            )  # fmt: skip
        self._replace(name, TeacherRow(name, parsed, now if before is None else before.created, now))
        return self.get(name)

    def remove(self, name: str) -> None:
        """Send a teacher away; raises `NotFound`."""
        found = self.get(name)
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.name == name))
            audit.changed(connection, "teacher.remove", _plain(found), None, about=name, at=self._clock())
        self._replace(name, None)

    def people(self, names: Iterable[str]) -> list[str]:
        """Those of them who are people."""
        with self._lock:
            rows = [self._rows.get(name) for name in names]
        return [row.name for row in rows if row is not None and isinstance(row.spec, PersonSpec)]

    def desk(self, name: str) -> Desk | None:
        """The desk of a teacher that answers at once; None: there is none, or nobody is asked any more."""
        with self._lock:
            row = self._rows.get(name)
            if self._closed or row is None or isinstance(spec := row.spec, PersonSpec):
                return None
            if name not in self._desks:
                self._desks[name] = Desk(
                    name,
                    lambda: self._hire(name, spec),
                    instances=spec.instances,
                    timeout_s=spec.timeout_s,
                    most=self._most,
                    most_bytes=self._most_bytes,
                )
            return self._desks[name]

    def states(self) -> Mapping[str, DeskState]:
        """How the desks are doing, of those teachers who were asked since the start."""
        with self._lock:
            desks = dict(self._desks)
        return {name: desk.state() for name, desk in sorted(desks.items())}

    def close(self, timeout_s: float) -> None:
        """Close every desk, all within ``timeout_s``; nobody is asked any more, and who was a teacher still is one."""
        until = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
            desks, self._desks = dict(self._desks), {}
        for desk in desks.values():
            desk.close(max(0.0, until - time.monotonic()))

    def _replace(self, name: str, row: TeacherRow | None) -> None:
        with self._lock:
            old = self._desks.pop(name, None)
            if row is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = row
        if old is not None:
            old.close()


def _plain(row: TeacherRow) -> Any:
    return row.spec.model_dump(mode="json")


def _row(row: Row[Any]) -> TeacherRow:
    return TeacherRow(row.name, ANY_SPEC.validate_json(row.spec_json), row.created, row.changed)
