"""API tokens of programs: shown once, kept as a hash, limited by role, channels, models and time.

A token reads ``el_<id>_<secret>``: whoever finds one in a log knows what it is and which one has to be revoked, and
secret scanners have a prefix to look for. The secret has 256 random bits, so a plain sha256 of it cannot be turned
back; a slow password hash would only slow down every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from cloud_hub.access import audit
from cloud_hub.access.principals import Principal, Role, acting, limit_of
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records.access_tables import tokens as table
from cloud_hub.records.database import Database
from edgeloop.protocol import ProtocolError, check_name

PREFIX = "el_"
_ID_BYTES, _SECRET_BYTES = 6, 32
_FORM = re.compile(r"el_([0-9a-f]{12}|local)_([0-9a-f]{64})")
#: What a token without a row is compared with, so that an unknown id takes as long as a wrong secret.
_NOTHING = bytes(32)
#: Names in a limit: more than that is a reason for a token of its own.
MOST_NAMES = 64


@dataclass(frozen=True)
class Token:
    """A token as the records know it: without its secret.

    Attributes:
        id: the part of the token that is no secret.
        name: whom it is for.
        role: what it may do.
        channels, models: the only ones that it may touch, or None.
        created: unix seconds.
        created_by: who made it.
        expires: unix seconds, or None for never.
        revoked: unix seconds, or None.
    """

    id: str
    name: str
    role: Role
    channels: tuple[str, ...] | None
    models: tuple[str, ...] | None
    created: float
    created_by: str
    expires: float | None
    revoked: float | None

    @property
    def principal(self) -> Principal:
        """Whoever shows it."""
        return Principal(
            "token", self.name, frozenset({self.role}), limit_of(self.channels), limit_of(self.models), display=self.id
        )


@dataclass(frozen=True)
class NewToken:
    """A token that was just made, and the only copy of its secret: ``text`` is what a client sends."""

    token: Token
    text: str


class Tokens:
    """The tokens of a hub.

    Args:
        db: the records.
        clock: unix seconds.
    """

    def __init__(self, db: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db, self._clock = db, clock

    def create(
        self,
        name: str,
        role: Role,
        *,
        channels: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        lasts_s: float | None = None,
    ) -> NewToken:
        """Make a token.

        Args:
            name: whom it is for: the audit log and the four eyes know it by this name.
            role: what it may do.
            channels: the only ones that it may touch; None for all.
            models: the only ones that it may touch; None for all.
            lasts_s: seconds that it is good for, or None for ever.

        Raises:
            BadRequest: a name is none.
        """
        now = self._clock()
        _check(name, channels, models)
        ident, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
        values: dict[str, Any] = {
            "id": ident,
            "name": name,
            "role": role.value,
            "channels_json": _names(channels),
            "models_json": _names(models),
            "created": now,
            "created_by": str(acting()),
            "expires": None if lasts_s is None else now + lasts_s,
        }
        with self._db.begin() as connection:
            connection.execute(table.insert().values(**values, secret_sha256=_sha256(secret)))
            made = self._get(ident)
            audit.changed(connection, "token.create", None, plain(made), about=ident, at=now)
        return NewToken(made, f"{PREFIX}{ident}_{secret}")

    def revoke(self, ident: str) -> Token:
        """End a token at once; one that is revoked already stays as it is. Raises `NotFound`."""
        with self._db.begin() as connection:
            found = self._get(ident)
            if found.revoked is None:
                now = self._clock()
                connection.execute(table.update().where(table.c.id == ident).values(revoked=now))
                audit.changed(connection, "token.revoke", plain(found), plain(self._get(ident)), about=ident, at=now)
            return self._get(ident)

    def all(self) -> Sequence[Token]:
        """Every token, the oldest first; also those that are over."""
        with self._db.read() as connection:
            return [_token(row) for row in connection.execute(select(table).order_by(table.c.created, table.c.id))]

    def any(self) -> bool:
        """Whether there ever was one."""
        with self._db.read() as connection:
            return bool(connection.execute(select(func.count()).select_from(table)).scalar_one())

    def known(self, text: str) -> Principal | None:
        """Whoever shows this token, or None: malformed, unknown, wrong, expired and revoked look the same."""
        if (match := _FORM.fullmatch(text)) is None:
            return None
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.id == match[1])).first()
        same = hmac.compare_digest(_NOTHING if row is None else bytes(row.secret_sha256), _sha256(match[2]))
        if row is None or not same or row.revoked is not None:
            return None
        return None if row.expires is not None and row.expires <= self._clock() else _token(row).principal

    def _get(self, ident: str) -> Token:
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.id == ident)).first()
        if row is None:
            raise NotFound(f"there is no token {ident[:80]!r}", "GET /api/v1/tokens lists them")
        return _token(row)


def plain(token: Token) -> dict[str, Any]:
    """A token as JSON."""
    return {
        **vars(token),
        "role": token.role.value,
        "channels": None if token.channels is None else list(token.channels),
        "models": None if token.models is None else list(token.models),
    }


def _check(name: str, channels: Sequence[str] | None, models: Sequence[str] | None) -> None:
    if not 1 <= len(name) <= 128 or not name.isprintable():
        raise BadRequest("a token's name has 1 to 128 printable characters", "say whom it is for")
    try:
        for kind, names in (("channel", channels), ("model", models)):
            if len(names or ()) > MOST_NAMES:
                raise BadRequest(f"a token is limited to {MOST_NAMES} names at most", "make more than one token")
            for each in names or ():
                check_name(each, kind)
    except ProtocolError as error:
        raise BadRequest(str(error)) from error


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _names(names: Sequence[str] | None) -> str | None:
    return json.dumps(sorted(set(names))) if names else None


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        channels=None if row.channels_json is None else tuple(json.loads(row.channels_json)),
        models=None if row.models_json is None else tuple(json.loads(row.models_json)),
        created=row.created,
        created_by=row.created_by,
        expires=row.expires,
        revoked=row.revoked,
    )
