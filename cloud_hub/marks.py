"""Marks: for each device and epoch, the highest number that was dealt with, and how to know its windows again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
from sqlalchemy import Connection, bindparam, select

from cloud_hub.records.database import Database, execute_rows, select_in
from cloud_hub.records.tables import marks as table

CHECKSUM_BYTES = 8

Key = tuple[str, int]
"""Device and epoch."""


class MarksMoved(Exception):
    """Another process moved a mark between our reading and our writing; the batch is judged anew."""


@dataclass(slots=True)
class Mark:
    """What is known of one device's epoch.

    Attributes:
        last: highest number dealt with.
        checksum: of the window that this number came with.
        newest: latest end of the windows dealt with, unix seconds by the device's clock; None while none had one.
        owner: the device that this epoch belongs to, where that is another one.
    """

    last: int
    checksum: bytes | None = None
    newest: float | None = None
    owner: str | None = None


class Marks:
    """The marks as one transaction finds and leaves them.

    Args:
        db: the records.
        keys: whose marks are needed.
    """

    def __init__(self, db: Database, keys: Iterable[Key]) -> None:
        wanted = dict.fromkeys(keys)
        self._marks: dict[Key, Mark] = {}
        self._before: dict[Key, int] = {}
        self._bodies: dict[Key, Mapping[str, Any]] = {}
        with db.read() as connection:
            devices = sorted({device for device, _ in wanted})
            for device, epoch, last, sum_, newest, owner in select_in(connection, _SELECT, table.c.device, devices):
                if (key := (device, epoch)) in wanted:
                    self._marks[key] = Mark(last, sum_, newest, owner)
                    self._before[key] = last
            fresh = sorted({epoch for device, epoch in wanted if (device, epoch) not in self._marks})
            owned = select_in(connection, _OWNED, table.c.epoch, fresh)
            self._owners: dict[int, str] = {epoch: device for device, epoch in owned}

    def last(self, key: Key) -> int | None:
        """The highest number dealt with, as this transaction leaves it; None for an epoch that is new."""
        mark = self._marks.get(key)
        return None if mark is None else mark.last

    def owner(self, key: Key) -> str | None:
        """The device that the epoch belongs to, where that is another one: the first that used it."""
        device, epoch = key
        mark = self._marks.get(key)
        owner = self._owners.get(epoch) if mark is None else mark.owner
        return None if owner == device else owner

    def move(self, key: Key, last: int, window: Mapping[str, Any]) -> None:
        """Note that everything up to ``last`` is dealt with, and that ``last`` came with this window."""
        mark, end = self._marks.get(key), window.get("end")
        if mark is None:
            mark = self._marks[key] = Mark(last, owner=self.owner(key))
            self._owners.setdefault(key[1], key[0])
        if isinstance(end, float) and (mark.newest is None or end > mark.newest):
            mark.newest = end
        mark.last = last
        self._bodies[key] = window

    def is_another(self, key: Key, last: int, window: Mapping[str, Any]) -> bool:
        """Whether a window whose number is dealt with is surely another one than came with that number then.

        Two things say so: it ends later than anything that was dealt with in the epoch; or its number is the latest and
        the contents differ.
        """
        mark, end = self._marks[key], window.get("end")
        if isinstance(end, float) and mark.newest is not None and end > mark.newest:
            return True
        if last != mark.last:
            return False
        known = checksum(self._bodies[key]) if key in self._bodies else mark.checksum
        return known is not None and checksum(window) != known

    def write(self, connection: Connection) -> None:
        """Write what has moved, inside the caller's transaction.

        Raises:
            MarksMoved: another process has moved one.
        """
        fresh: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for key, window in self._bodies.items():
            mark, before = self._marks[key], self._before.get(key)
            values = (*key, mark.last, checksum(window), mark.newest)
            if before is None:
                fresh.append((*values, mark.owner))
            else:
                moved.append((*values, before))
        execute_rows(connection, _INSERT, (*_NAMES, "owner"), fresh)
        if execute_rows(connection, _MOVE, (*_KEYS, *_NAMES[2:], "before"), moved) != len(moved):
            raise MarksMoved("the mark of a device was moved by another process")


def checksum(window: Mapping[str, Any]) -> bytes:
    """A window that is sent again has the same one; 8 bytes against faults, not against forgers."""
    return hashlib.blake2b(cbor2.dumps(window), digest_size=CHECKSUM_BYTES).digest()


_NAMES, _KEYS = ("device", "epoch", "last", "checksum", "newest"), ("the_device", "the_epoch")
_SELECT = select(*(table.c[name] for name in (*_NAMES, "owner")))
_OWNED = select(table.c.device, table.c.epoch).where(table.c.owner.is_(None))
_INSERT = table.insert()
_MOVE = (
    table.update()
    .where(*(table.c[key.removeprefix("the_")] == bindparam(key) for key in _KEYS), table.c.last == bindparam("before"))
    .values({name: bindparam(name) for name in _NAMES[2:]})
)
