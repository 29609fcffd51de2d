"""Sessions of people who signed in: a cookie whose secret is kept as a hash, and ends by itself."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable

from sqlalchemy import select

from cloud_hub.access import audit
from cloud_hub.access.principals import Principal, Role, limit_of
from cloud_hub.records.access_tables import sessions as table
from cloud_hub.records.database import Database


class Sessions:
    """The sessions of a hub.

    Args:
        db: the records.
        lasts_s: seconds after which somebody has to sign in again.
        clock: unix seconds.
    """

    def __init__(self, db: Database, lasts_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._db, self.lasts_s, self._clock = db, lasts_s, clock

    def begin(self, who: Principal) -> str:
        """Begin a session of a person; returns the cookie's value. Sessions that are over are forgotten."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        roles = sorted(who.roles)
        values = {
            "secret_sha256": _sha256(secret),
            "subject": who.name,
            "display": who.display,
            "roles_json": json.dumps(roles),
            "channels_json": None if who.channels is None else json.dumps(sorted(who.channels)),
            "models_json": None if who.models is None else json.dumps(sorted(who.models)),
            "created": now,
            "expires": now + self.lasts_s,
        }
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.expires <= now))
            connection.execute(table.insert().values(**values))
            after = {"display": who.display, "roles": roles}
            audit.record(connection, who, "session.begin", None, after, about=who.name, at=now)
        return secret

    def known(self, secret: str) -> Principal | None:
        """Whose session it is, or None where it is none or over."""
        query = select(table).where(table.c.secret_sha256 == _sha256(secret), table.c.expires > self._clock())
        with self._db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Principal(
            "person",
            row.subject,
            frozenset(map(Role, json.loads(row.roles_json))),
            limit_of(json.loads(row.channels_json or "null")),
            limit_of(json.loads(row.models_json or "null")),
            display=row.display,
        )

    def end(self, secret: str) -> None:
        """End a session; nothing where there is none."""
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.secret_sha256 == _sha256(secret)))


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
