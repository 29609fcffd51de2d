"""Enrolment tokens: made by whoever runs the fleet, exchanged once for a certificate by a device.

A use belongs to the key that it was made with. So a device whose answer was lost asks again with the same token and
gets its certificate, after the token's end as well; whoever finds the token later has another key, and gets nothing.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import Connection, func, select

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from cloud_hub.identity.registry import Registry, request_key_hash
from cloud_hub.records.database import Database
from cloud_hub.records.identity_tables import device_certificates, enrolment_uses, enrolments
from edgeloop.protocol import ProtocolError, check_name
from edgeloop.protocol.enrolment import EnrolmentToken

_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,64}")
#: One answer for every token that is not good: whoever tries some out learns nothing.
_NOT_GOOD = ("the enrolment token is not valid", "it is used up, has ended or was never made: ask for another one")


@dataclass(frozen=True)
class Enrolment:
    """A token, without its secret.

    Attributes:
        id: its name.
        device: name of the device that it is for, or a pattern with ``*``.
        channels: that the device may follow.
        uses: devices that may enrol with it.
        used: those that did.
        replaces: whether the device may take a name that another one has, which then loses it.
        created: unix seconds.
        expires: unix seconds.
        withdrawn: unix seconds since when it is void, or None.
    """

    id: str
    device: str
    channels: tuple[str, ...]
    uses: int
    used: int
    replaces: bool
    created: float
    expires: float
    withdrawn: float | None


@dataclass(frozen=True)
class Redeemed:
    """What a device gets for a token: its name, its certificate's chain (PEM) and the channels that it may follow."""

    device: str
    certificate: bytes
    channels: tuple[str, ...]


class Enrolments:
    """The tokens of a hub.

    Args:
        db: the records.
        registry: of the devices that enrol.
        clock: unix seconds.
        reuse: whether a name may be enrolled again while a revoked certificate of it has not ended; only where the
            broker is told of revoked certificates.
    """

    def __init__(
        self, db: Database, registry: Registry, *, clock: Callable[[], float] = time.time, reuse: bool = True
    ) -> None:
        self._db, self._registry, self._clock, self._reuse = db, registry, clock, reuse

    def create(
        self,
        token: EnrolmentToken,
        *,
        device: str = "*",
        channels: Sequence[str] = ("stable",),
        expires_s: float = 3600.0,
        uses: int = 1,
        replaces: bool = False,
    ) -> Enrolment:
        """Make a fresh token good.

        Raises:
            BadRequest: the pattern or a channel is no name, or the token would replace any device.
        """
        try:
            names = tuple(check_name(channel, "channel") for channel in dict.fromkeys(channels))
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        if not _PATTERN.fullmatch(device):
            raise BadRequest(f"the device {device[:80]!r} has to be a name, or a pattern of A-Z a-z 0-9 _ . - and *")
        if replaces and "*" in device:
            raise BadRequest("a token that replaces a device has to name it", "give --device its name, without *")
        now = self._clock()
        row = {
            "id": token.id,
            "secret_hash": token.secret_hash,
            "device": device,
            "channels_json": json.dumps(names),
            "uses": uses,
            "replaces": replaces,
            "created": now,
            "expires": now + expires_s,
        }
        with self._db.begin() as connection:
            connection.execute(enrolments.insert().values(**row))
            said = {"device": device, "channels": names, "uses": uses, "replaces": replaces, "expires": now + expires_s}
            audit.record(connection, acting(), "enrolment.create", None, said, about=token.id, at=now)
        return Enrolment(token.id, device, names, uses, 0, replaces, now, now + expires_s, None)

    def all(self) -> list[Enrolment]:
        """Every token, newest first."""
        used = select(enrolment_uses.c.enrolment, func.count().label("used")).group_by(enrolment_uses.c.enrolment)
        of = used.subquery()
        query = select(enrolments, of.c.used).outerjoin(of, of.c.enrolment == enrolments.c.id)
        with self._db.read() as connection:
            return [
                Enrolment(
                    id=row.id,
                    device=row.device,
                    channels=tuple(json.loads(row.channels_json)),
                    uses=row.uses,
                    used=row.used or 0,
                    replaces=row.replaces,
                    created=row.created,
                    expires=row.expires,
                    withdrawn=row.withdrawn,
                )
                for row in connection.execute(query.order_by(enrolments.c.created.desc()))
            ]

    def withdraw(self, name: str) -> None:
        """Make a token void; devices that have enrolled with it stay. Raises `NotFound`."""
        with self._db.begin() as connection:
            changed = connection.execute(
                enrolments.update().where(enrolments.c.id == name).values(withdrawn=self._clock())
            )
            if not changed.rowcount:
                raise NotFound(f"there is no enrolment {name[:40]!r}", "`cloud-hub enrolment list` names them")
            void = {"withdrawn": True}
            audit.record(connection, acting(), "enrolment.withdraw", None, void, about=name, at=self._clock())

    def redeem(self, token: EnrolmentToken, device: str, request: bytes) -> Redeemed:
        """Exchange a token for a certificate.

        Args:
            token: as the device has it.
            device: the name that it wants.
            request: of its key, PEM.

        Raises:
            BadRequest: the name or the request is none.
            Unauthorized: the token is not good.
            Forbidden: it is not good for this device.
            Conflict: the name belongs to another key.
            AuthorityError: no certificate was issued; the same token and key may be tried again.
        """
        try:
            check_name(device, "device")
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        key = request_key_hash(request)
        with self._db.begin() as connection:
            row = connection.execute(select(enrolments).where(enrolments.c.id == token.id)).first()
            if row is None or not hmac.compare_digest(row.secret_hash, token.secret_hash):
                raise Unauthorized(*_NOT_GOOD)
            channels = tuple(json.loads(row.channels_json))
            known = self._issued(connection, token.id, key, device)
            if known is not None:
                return Redeemed(device, known, channels)
            self._check_name(connection, device, key, replaces=row.replaces)
        # Outside of the transaction: an authority elsewhere may take its time, and the hub goes on counting.
        chain = self._registry.issue(request, device)
        with self._db.begin() as connection:
            if (known := self._issued(connection, token.id, key, device)) is not None:
                return Redeemed(device, known, channels)
            self._check_name(connection, device, key, replaces=row.replaces)
            self._registry.admit(connection, device, channels, token.id)
            self._registry.enter(connection, chain, device, token.id)
            said = {"enrolment": token.id, "key": key, "channels": channels}
            audit.record(connection, acting(), "device.enrol", None, said, about=device, at=self._clock())
        self._registry.changed(revoked=bool(row.replaces))
        return Redeemed(device, chain, channels)

    def _issued(self, connection: Connection, name: str, key: str, device: str) -> bytes | None:
        """What this key has got for the token before, or None once the use is noted; raises as `redeem`."""
        row = connection.execute(select(enrolments).where(enrolments.c.id == name)).one()
        uses = enrolment_uses
        mine = connection.execute(select(uses).where(uses.c.enrolment == name, uses.c.public_key == key)).first()
        if mine is not None:
            if mine.device != device:
                raise Forbidden(f"this key has enrolled as {mine.device} before", "ask for another token")
            return self._certificate(connection, name, key)
        used = connection.execute(select(func.count()).where(uses.c.enrolment == name)).scalar() or 0
        if row.withdrawn is not None or self._clock() > row.expires or used >= row.uses:
            raise Unauthorized(*_NOT_GOOD)
        if not fnmatchcase(device, row.device):
            raise Forbidden(f"the token is not for a device {device!r}", f"it is for {row.device!r}")
        connection.execute(uses.insert().values(enrolment=name, public_key=key, device=device, at=self._clock()))
        return None

    def _certificate(self, connection: Connection, name: str, key: str) -> bytes | None:
        table = device_certificates
        query = select(table.c.pem, table.c.revoked).where(table.c.enrolment == name, table.c.public_key == key)
        row = connection.execute(query.order_by(table.c.issued.desc()).limit(1)).first()
        if row is None:
            return None
        if row.revoked is not None:
            raise Forbidden("the certificate of this key was revoked", "make another key: enrol with another token")
        return bytes(row.pem, "ascii")

    def _check_name(self, connection: Connection, device: str, key: str, *, replaces: bool) -> None:
        holder = self._registry.holder(connection, device)
        if holder is not None and holder != key and not replaces:
            raise Conflict(
                f"{device} is enrolled with another key",
                "revoke it, or make a token that replaces it: cloud-hub enrolment create --device NAME --replace",
            )
        if not self._reuse and (replaces or self._registry.was_revoked(connection, device)):
            raise Conflict(
                f"{device} has a revoked certificate that has not ended, and the broker cannot tell it from a new one",
                "choose another name, or set crl_file to the authority's list of revoked certificates",
            )
