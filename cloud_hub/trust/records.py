"""The records of signed metadata; every function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from cloud_hub.records.trust_tables import trust_metadata as table
from edgeloop.trust.names import ROOT

#: Versions of a role that are kept besides its newest: a device that has just read a timestamp still finds what it
#: names. Roots are all kept, since a device walks from its own to the newest.
KEPT_VERSIONS = 32


@dataclass(frozen=True)
class Stored:
    """One version of a role's metadata.

    Attributes:
        version: its version.
        content: the file byte for byte.
        received: unix seconds at which it was taken or signed.
    """

    version: int
    content: bytes
    received: float


_LAST = select(table.c.role, func.max(table.c.version).label("version")).group_by(table.c.role).subquery()
_NEWEST = select(table).join(_LAST, (table.c.role == _LAST.c.role) & (table.c.version == _LAST.c.version))


def newest(connection: Connection) -> dict[str, Stored]:
    """Role → its newest metadata."""
    return {row.role: Stored(row.version, row.content, row.received) for row in connection.execute(_NEWEST)}


def find(connection: Connection, role: str, version: int | None = None) -> bytes | None:
    """This version of a role's metadata, or its newest."""
    query = select(table.c.content).where(table.c.role == role).order_by(table.c.version.desc()).limit(1)
    if version is not None:
        query = query.where(table.c.version == version)
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found)


def roots(connection: Connection) -> dict[int, bytes]:
    """Every root's version and file, the oldest first."""
    query = select(table.c.version, table.c.content).where(table.c.role == ROOT).order_by(table.c.version)
    return {int(version): bytes(content) for version, content in connection.execute(query)}


def add(connection: Connection, role: str, stored: Stored) -> None:
    """Write the next version of a role, and forget what is long superseded."""
    connection.execute(table.insert().values(role=role, **vars(stored)))
    if role != ROOT:
        kept = select(table.c.version).where(table.c.role == role).order_by(table.c.version.desc())
        oldest = connection.execute(kept.offset(KEPT_VERSIONS).limit(1)).scalar()
        if oldest is not None:
            connection.execute(table.delete().where(table.c.role == role, table.c.version <= oldest))
