"""The devices that are enrolled, and the certificates that they have: issue, renew, revoke, recognise."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, Integer, func, select

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.errors import Conflict, Forbidden, NotFound
from cloud_hub.identity.authority import Authority
from cloud_hub.identity.certificates import public_key_bytes, read_request
from cloud_hub.records.database import Database
from cloud_hub.records.identity_tables import device_certificates, identities
from cloud_hub.records.tables import devices

#: Certificates of one device that hold at once; a device renews at two thirds of a certificate's life, so it has two.
MOST_CERTIFICATES = 16
_DAY_S = 86_400.0


@dataclass(frozen=True)
class IdentityRow:
    """An enrolled device.

    Attributes:
        device: its name, and that of its certificates.
        channels: that it may follow, besides the one that the hub wishes.
        enrolment: id of the token that it enrolled with.
        enrolled: unix seconds.
        revoked: unix seconds since when it may do nothing, or None.
        reason: why.
        ends: unix seconds at which its newest certificate ends.
        certificates: number of those that still hold.
    """

    device: str
    channels: tuple[str, ...]
    enrolment: str
    enrolled: float
    revoked: float | None
    reason: str
    ends: float
    certificates: int


class Registry:
    """Identities of devices.

    Args:
        db: the records.
        authority: signs certificates.
        days: how long a device's certificate holds.
        grace_days: how long after its end it may still be exchanged for a new one.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        authority: Authority,
        *,
        days: float,
        grace_days: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._authority, self._days, self._clock = db, authority, days, clock
        self._grace_s = grace_days * _DAY_S
        self._changes: list[Callable[[bool], None]] = []

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Have ``callback(revoked)`` called when rights have changed, before whoever changed them is answered."""
        self._changes.append(callback)

    def issue(self, request: bytes, device: str) -> bytes:
        """A certificate for a device's key, PEM, which counts once it is entered; raises as `Authority.issue`."""
        return self._authority.issue(request, device, "device", self._days)

    def enter(self, connection: Connection, chain: bytes, device: str, enrolment: str) -> None:
        """Note a certificate, inside the caller's transaction."""
        leaf = x509.load_pem_x509_certificates(chain)[0]
        table, now = device_certificates, self._clock()
        forgotten = now - self._grace_s - _DAY_S
        connection.execute(table.delete().where(table.c.device == device, table.c.ends < forgotten))
        connection.execute(
            table.insert().values(
                serial=f"{leaf.serial_number:x}",
                device=device,
                public_key=key_hash(leaf),
                enrolment=enrolment,
                pem=chain.decode("ascii"),
                issued=now,
                ends=leaf.not_valid_after_utc.timestamp(),
            )
        )

    def admit(self, connection: Connection, device: str, channels: Sequence[str], enrolment: str) -> None:
        """Give a device its rights, inside the caller's transaction; certificates that it had before are revoked."""
        now, table = self._clock(), device_certificates
        connection.execute(
            table.update().where(table.c.device == device, table.c.revoked.is_(None)).values(revoked=now)
        )
        connection.execute(identities.delete().where(identities.c.device == device))
        connection.execute(
            identities.insert().values(
                device=device, channels_json=json.dumps(list(channels)), enrolment=enrolment, enrolled=now, reason=""
            )
        )

    def holder(self, connection: Connection, device: str) -> str | None:
        """Hash of the newest key that has this name now, or None while nobody has it."""
        alive = select(identities.c.device).where(identities.c.device == device, identities.c.revoked.is_(None))
        if connection.execute(alive).first() is None:
            return None
        table = device_certificates
        query = select(table.c.public_key).where(table.c.device == device, table.c.revoked.is_(None))
        return connection.execute(query.order_by(table.c.issued.desc()).limit(1)).scalar()

    def was_revoked(self, connection: Connection, device: str) -> bool:
        """Whether a certificate of this name was revoked that has not ended yet."""
        table = device_certificates
        query = select(table.c.serial).where(table.c.device == device, table.c.revoked.is_not(None))
        return connection.execute(query.where(table.c.ends > self._clock()).limit(1)).first() is not None

    def recognise(self, certificate: bytes, renewing: bool = False) -> str:
        """The device whose certificate this is.

        Args:
            certificate: DER, of a connection that has proved to have its key.
            renewing: whether one that ended a short while ago will do.

        Raises:
            Forbidden: it is no device's, was revoked, or has ended.
        """
        table = device_certificates
        shown = x509.load_der_x509_certificate(certificate)
        serial = f"{shown.serial_number:x}"
        query = select(table.c.device, table.c.pem, table.c.ends, table.c.revoked, identities.c.revoked.label("gone"))
        query = query.outerjoin(identities, identities.c.device == table.c.device).where(table.c.serial == serial)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        if row is None or x509.load_pem_x509_certificates(row.pem.encode())[0] != shown:
            raise Forbidden("the certificate is no enrolled device's", "enrol the device: edge-agent enrol")
        if row.revoked is not None or row.gone is not None:
            raise Forbidden(f"the certificate of {row.device} was revoked", "enrol the device again, if it is ours")
        if self._clock() > row.ends + (self._grace_s if renewing else 0.0):
            raise Forbidden(f"the certificate of {row.device} has ended", "renew it, or enrol the device again")
        return str(row.device)

    def renew(self, certificate: bytes, request: bytes) -> tuple[str, bytes]:
        """A new certificate for whoever has one, which goes on holding until its end.

        Args:
            certificate: DER, of a connection that has proved to have its key.
            request: of the same or a new key, PEM.

        Returns:
            The device's name, and the new certificate's chain, PEM.

        Raises:
            Forbidden: the certificate at hand is not good enough.
            Conflict: it renews all the time.
            BadRequest: the request is none.
            AuthorityError: nothing was issued.
        """
        device = self.recognise(certificate, True)
        table = device_certificates
        held = select(func.count()).where(
            table.c.device == device, table.c.revoked.is_(None), table.c.ends > self._clock()
        )
        with self._db.read() as connection:
            if (connection.execute(held).scalar() or 0) >= MOST_CERTIFICATES:
                raise Conflict(
                    f"{device} has {MOST_CERTIFICATES} certificates that hold",
                    "a device renews once in weeks: find out why this one does not keep what it gets",
                )
        chain = self.issue(request, device)
        with self._db.begin() as connection:
            row = connection.execute(select(identities).where(identities.c.device == device)).first()
            if row is None or row.revoked is not None:  # it came in between
                raise Forbidden(f"the certificate of {device} was revoked")
            self.enter(connection, chain, device, row.enrolment)
            said = {"key": request_key_hash(request)}
            audit.record(connection, acting(), "device.renew", None, said, about=device, at=self._clock())
        return device, chain

    def revoke(self, device: str, reason: str) -> None:
        """Take every right from a device, at once; an open connection of it ends.

        Raises:
            NotFound: it was never enrolled.
        """
        now, table = self._clock(), device_certificates
        with self._db.begin() as connection:
            changed = connection.execute(
                identities.update()
                .where(identities.c.device == device, identities.c.revoked.is_(None))
                .values(revoked=now, reason=reason)
            )
            if not changed.rowcount:
                if connection.execute(select(identities).where(identities.c.device == device)).first() is None:
                    raise NotFound(
                        f"there is no enrolled device {device[:80]!r}", "`cloud-hub devices list` names them"
                    )
                return
            connection.execute(
                table.update().where(table.c.device == device, table.c.revoked.is_(None)).values(revoked=now)
            )
            audit.record(connection, acting(), "device.revoke", None, {"reason": reason}, about=device, at=now)
        self.changed(revoked=True)

    def changed(self, *, revoked: bool = False) -> None:
        """Tell whoever keeps the broker's rules that rights have changed; returns when they hold."""
        for callback in self._changes:
            callback(revoked)

    def all(self) -> list[IdentityRow]:
        """Every device that was ever enrolled, by name."""
        table, now = device_certificates, self._clock()
        holds = func.sum((table.c.revoked.is_(None) & (table.c.ends > now)).cast(Integer))
        query = (
            select(identities, func.max(table.c.ends).label("ends"), holds.label("certificates"))
            .outerjoin(table, table.c.device == identities.c.device)
            .group_by(identities.c.device)
            .order_by(identities.c.device)
        )
        with self._db.read() as connection:
            return [_identity(row) for row in connection.execute(query)]

    def rights(self) -> dict[str, tuple[str, ...]]:
        """Device → channels that it may follow, for every one that is enrolled and not revoked."""
        query = select(identities.c.device, identities.c.channels_json, devices.c.desired_json)
        query = query.outerjoin(devices, devices.c.device == identities.c.device)
        query = query.where(identities.c.revoked.is_(None)).order_by(identities.c.device)
        with self._db.read() as connection:
            return {row.device: _channels(row) for row in connection.execute(query)}

    def may_follow(self, device: str, channel: str) -> bool:
        """Whether a device is enrolled for a channel, or the hub wishes it to follow it."""
        query = select(identities.c.channels_json, devices.c.desired_json)
        query = query.outerjoin(devices, devices.c.device == identities.c.device)
        with self._db.read() as connection:
            row = connection.execute(query.where(identities.c.device == device, identities.c.revoked.is_(None))).first()
        return row is not None and channel in _channels(row)

    def crl(self) -> bytes | None:
        """The list of revoked certificates that have not ended, PEM; None when somebody else keeps it."""
        table = device_certificates
        query = select(table.c.serial, table.c.revoked).where(table.c.revoked.is_not(None))
        with self._db.read() as connection:
            rows = connection.execute(query.where(table.c.ends > self._clock()).order_by(table.c.revoked)).all()
        return self._authority.crl((int(row.serial, 16), row.revoked) for row in rows)

    @property
    def anchors(self) -> bytes:
        """The certificates by which devices' certificates are known, PEM."""
        return self._authority.anchors


def key_hash(one: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """What the records say of a public key."""
    return hashlib.sha256(public_key_bytes(one)).hexdigest()


def request_key_hash(request: bytes) -> str:
    """The same of a certificate request, PEM; raises `BadRequest`."""
    return key_hash(read_request(request))


def _channels(row: Any) -> tuple[str, ...]:
    wished = json.loads(row.desired_json or "{}").get("channel")
    return tuple(dict.fromkeys([*json.loads(row.channels_json), *([wished] if wished else [])]))


def _identity(row: Any) -> IdentityRow:
    return IdentityRow(
        device=row.device,
        channels=tuple(json.loads(row.channels_json)),
        enrolment=row.enrolment,
        enrolled=row.enrolled,
        revoked=row.revoked,
        reason=row.reason,
        ends=row.ends or 0.0,
        certificates=int(row.certificates or 0),
    )
