"""The audit log: who changed what, before and after, written in the transaction of the change itself.

Each row is hashed over the one before, so what was written once cannot be changed, taken out or put in between without
changing every later hash. The database refuses to update or delete a row. Whoever owns the database file can get round
that, and can write the whole chain anew: so the head's hash is worth keeping elsewhere, and `verify` takes it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from cloud_hub.access.principals import Principal, acting
from cloud_hub.records.access_tables import audit_log as table

#: What the first row's hash is over, in place of a row before it.
GENESIS = bytes(32)
#: Rows that are read at a time when the whole log is walked.
_PAGE = 1000


@dataclass(frozen=True)
class Entry:
    """One change.

    Attributes:
        number: counted from 1 without a gap.
        at: unix seconds.
        who: kind and name of the principal, such as ``token:ci``; ``hub:hub`` for what it did by itself.
        what: the kind of change, such as ``channel.policy``.
        about: the thing that was changed, such as the channel's name.
        before: what it was, plain JSON; None where it was not there.
        after: what it is now; None where it is gone.
        previous: hash of the row before; 32 zero bytes for the first.
        hash: sha256 over all of this.
    """

    number: int
    at: float
    who: str
    what: str
    about: str
    before: Any
    after: Any
    previous: bytes
    hash: bytes


@dataclass(frozen=True)
class Head:
    """The newest row: what is kept elsewhere to prove later that nothing before it was touched."""

    number: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What walking the whole chain found.

    Attributes:
        head: the newest row that holds.
        problem: what does not hold, or "".
    """

    head: Head
    problem: str


def record(
    connection: Connection,
    who: Principal,
    what: str,
    before: Any,
    after: Any,
    *,
    about: str = "",
    at: float | None = None,
) -> None:
    """Write down a change, in the transaction that makes it.

    Args:
        connection: the transaction's.
        who: on whose behalf; `principals.acting` knows.
        what: the kind of change, such as ``channel.policy``.
        before: what it was, plain JSON without any secret; None where it was not there.
        after: what it is now.
        about: the thing that is changed.
        at: unix seconds; now where it is left out.
    """
    last = connection.execute(select(table.c.number, table.c.hash).order_by(table.c.number.desc()).limit(1)).first()
    number, previous = (1, GENESIS) if last is None else (last.number + 1, bytes(last.hash))
    values = {
        "number": number,
        "at": round(float(time.time() if at is None else at), 6),
        "who": str(who)[:256],
        "what": what,
        "about": about[:256],
        "before_json": _text(before),
        "after_json": _text(after),
    }
    connection.execute(table.insert().values(**values, previous=previous, hash=_hash(previous, values)))


def changed(
    connection: Connection, what: str, before: Any, after: Any, *, about: str = "", at: float | None = None
) -> None:
    """`record` on behalf of whoever this code runs for."""
    record(connection, acting(), what, before, after, about=about, at=at)


def head(connection: Connection) -> Head:
    """The newest row; number 0 where there is none."""
    row = connection.execute(select(table.c.number, table.c.hash).order_by(table.c.number.desc()).limit(1)).first()
    return Head(0, GENESIS.hex()) if row is None else Head(row.number, bytes(row.hash).hex())


def entries(connection: Connection, after: int = 0, limit: int = 200, about: str | None = None) -> Sequence[Entry]:
    """Rows with a number above ``after``, the oldest first."""
    query = select(table).where(table.c.number > after).order_by(table.c.number).limit(limit)
    if about is not None:
        query = query.where(table.c.about == about)
    return [_entry(row) for row in connection.execute(query)]


def newest(connection: Connection, limit: int = 200, about: str | None = None) -> Sequence[Entry]:
    """The newest rows, the newest first."""
    query = select(table).order_by(table.c.number.desc()).limit(limit)
    if about is not None:
        query = query.where(table.c.about == about)
    return [_entry(row) for row in connection.execute(query)]


def verify(connection: Connection, anchor: Head | None = None) -> Verdict:
    """Walk the whole chain.

    Args:
        connection: a reading transaction.
        anchor: a head that was kept elsewhere: the row of that number has to be there with that hash.
    """
    good = Head(0, GENESIS.hex())
    for row in _rows(connection):
        problem = _problem(row, good)
        if not problem and anchor is not None and row.number == anchor.number and bytes(row.hash).hex() != anchor.hash:
            problem = f"row {row.number} is not the one that was kept: the log was written anew"
        if problem:
            return Verdict(good, problem)
        good = Head(row.number, bytes(row.hash).hex())
    if anchor is not None and good.number < anchor.number:
        return Verdict(good, f"the log ends at row {good.number}, and row {anchor.number} was kept: its end is gone")
    return Verdict(good, "")


def plain(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    return {**vars(entry), "previous": entry.previous.hex(), "hash": entry.hash.hex()}


def _rows(connection: Connection) -> Iterator[Row[Any]]:
    last = 0
    while page := connection.execute(
        select(table).where(table.c.number > last).order_by(table.c.number).limit(_PAGE)
    ).all():
        yield from page
        last = page[-1].number


def _problem(row: Row[Any], before: Head) -> str:
    if row.number != before.number + 1:
        return f"row {before.number + 1} is missing: after row {before.number} comes row {row.number}"
    if bytes(row.previous).hex() != before.hash:
        return f"row {row.number} does not follow row {before.number}"
    names = ("number", "at", "who", "what", "about", "before_json", "after_json")
    if _hash(bytes(row.previous), {name: getattr(row, name) for name in names}) != bytes(row.hash):
        return f"row {row.number} was changed after it was written"
    return ""


def _hash(previous: bytes, values: dict[str, Any]) -> bytes:
    """sha256 over the hash before and the row as canonical JSON."""
    return hashlib.sha256(previous + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).digest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.number,
        row.at,
        row.who,
        row.what,
        row.about,
        json.loads(row.before_json),
        json.loads(row.after_json),
        bytes(row.previous),
        bytes(row.hash),
    )
