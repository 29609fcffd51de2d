"""The device registry: what each device last said of itself, and what the hub has counted for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, select

from cloud_hub.access import audit
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.ports import Publisher, Sealer
from cloud_hub.records.counters import DEVICE_COUNTS, read_counts
from cloud_hub.records.database import Database, add_rows, select_in
from cloud_hub.records.tables import device_totals
from cloud_hub.records.tables import devices as table
from cloud_hub.sealing import Unsigned
from edgeloop.protocol import Desired, Presence, ProtocolError, Reported, Topics, TrialRequest, check_name


@dataclass(frozen=True)
class Device:
    """A device as the hub knows it.

    Attributes:
        device: its name.
        online: whether it is connected, as far as presence and the broker's will say.
        channel: the channel that it says it follows, or None before its first report.
        release: digest of its committed release, or None.
        update_state: state of its update machine; a state that this hub does not know is kept as it is.
        update_release: digest that the state is about, or None.
        update_rollout: id of the rollout that offered it, or None.
        clock_skew_s: the device's clock minus the hub's, seconds, or None while unknown.
        reported: the whole reported document, plain, or empty.
        presence: the whole presence document, plain, or empty.
        desired: what the hub wants of this device, plain, or empty.
        reported_at: unix seconds, the hub's clock, or None.
        first_seen: unix seconds.
        last_seen: unix seconds of the last thing that the device itself sent.
        totals: what the hub has counted for it.
    """

    device: str
    online: bool
    channel: str | None
    release: str | None
    update_state: str | None
    update_release: str | None
    update_rollout: str | None
    clock_skew_s: float | None
    reported: Mapping[str, Any]
    presence: Mapping[str, Any]
    desired: Mapping[str, Any]
    reported_at: float | None
    first_seen: float
    last_seen: float
    totals: Mapping[str, Any]

    @property
    def update_reason(self) -> str:
        """Why the update machine is in its state."""
        return str((self.reported.get("update") or {}).get("reason", ""))


class Devices:
    """The devices of a hub.

    Args:
        db: the records.
        topics: of the fleet.
        publisher: sends the desired documents.
        sealer: answers for them.
        moved: called with the channel that a device is told to follow, before it is told: what that channel's topic
            holds must not be older than what the device has seen elsewhere.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        topics: Topics,
        publisher: Publisher,
        *,
        sealer: Sealer | None = None,
        moved: Callable[[str], object] = lambda _channel: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._topics, self._publisher, self._clock = db, topics, publisher, clock
        self._sealer, self._moved = sealer or Unsigned(), moved

    def get(self, device: str) -> Device:
        """The device; raises `NotFound`."""
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.device == device)).first()
            if row is None:
                raise NotFound(f"there is no device {device[:80]!r}", "a device appears when it first connects")
            return _device(row, self._totals(connection, device).get(device))

    def all(self, channel: str | None = None) -> list[Device]:
        """All devices by name, or those that say they follow ``channel``."""
        query = select(table).order_by(table.c.device)
        if channel is not None:
            query = query.where(table.c.channel == channel)
        with self._db.read() as connection:
            totals = self._totals(connection)
            return [_device(row, totals.get(row.device)) for row in connection.execute(query)]

    def online(self) -> dict[bool, int]:
        """Number of devices that are online, and that are not."""
        query = select(table.c.online, func.count()).group_by(table.c.online)
        with self._db.read() as connection:
            return {False: 0, True: 0, **{bool(online): int(count) for online, count in connection.execute(query)}}

    def take_presence(self, connection: Connection, message: Presence, now: float) -> None:
        """Note a presence document, inside the caller's transaction."""
        self._upsert(
            connection,
            message.device,
            now,
            seen=message.online,
            online=message.online,
            presence_json=json.dumps(message.to_wire(), default=_plain),
        )

    def take_reported(self, connection: Connection, message: Reported, now: float) -> None:
        """Note a reported document, inside the caller's transaction.

        The broker gives the last one again whenever the hub connects: a document that is known changes nothing, so
        an old clock in it is not taken for a new skew.
        """
        text = json.dumps(message.to_wire(), default=_plain)
        known = connection.execute(select(table.c.reported_json).where(table.c.device == message.device)).scalar()
        if known == text:
            return
        update = message.update
        self._upsert(
            connection,
            message.device,
            now,
            seen=True,
            channel=message.channel,
            release=message.release,
            update_state=None if update is None else update.state,
            update_release=None if update is None else update.release,
            update_rollout=None if update is None else update.rollout,
            clock_skew_s=message.clock - now,
            reported_json=text,
            reported_at=now,
        )

    def forget_presence(self, connection: Connection) -> None:
        """Take every device for offline, in the caller's transaction: the broker says again who is there."""
        connection.execute(table.update().values(online=False))

    def take_contacts(self, connection: Connection, devices: Sequence[str], now: float) -> None:
        """Note that these devices sent something, inside the caller's transaction."""
        rows = [(device, False, now, now) for device in devices]
        names = ("device", "online", "first_seen", "last_seen")
        add_rows(connection, table, names, rows, replaced=["last_seen"])

    def skews(self, devices: Sequence[str]) -> dict[str, float]:
        """Device → its clock minus the hub's, seconds, for those whose clock is known."""
        with self._db.read() as connection:
            return {row[0]: row[1] for row in select_in(connection, _SKEWS, table.c.device, devices)}

    def set_desired(self, device: str, desired: Desired) -> None:
        """Say what the hub wants of a device, which need not have been seen yet.

        Args:
            device: its name.
            desired: what is wanted; the device's name and the next serial are put in here. A trial that it is asked
                for stays, whatever this says of one.

        Raises:
            BadRequest: it is no name for a device, or nothing that can be sent.
        """
        try:
            check_name(device, "device")
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        self._change(device, lambda known: replace(desired, trial=known.trial))

    def set_trial(self, device: str, trial: TrialRequest | None) -> None:
        """Ask a device for a trial, or for none any more; what else is wanted of it stays."""
        with self._db.read() as connection:
            text = connection.execute(select(table.c.desired_json).where(table.c.device == device)).scalar()
        if (Desired.from_wire(json.loads(text)).trial if text else None) != trial:
            self._change(device, lambda known: replace(known, trial=trial))

    def _change(self, device: str, change: Callable[[Desired], Desired]) -> None:
        with self._db.begin() as connection:
            known = connection.execute(select(table.c.desired_json).where(table.c.device == device)).scalar()
            before = Desired.from_wire(json.loads(known)) if known else Desired()
            serial = self._sealer.next_serial(before.serial)
            wanted = replace(change(before), device=device, serial=serial)
            try:
                wanted.to_bytes()  # what cannot be said to a device is refused here: after the commit it would be lost
                text = json.dumps(wanted.to_wire(), default=_plain)
            except ProtocolError as error:
                raise BadRequest(str(error)) from error
            now = self._clock()
            self._upsert(connection, device, now, seen=False, desired_json=text)
            told = json.loads(known) if known else None
            audit.changed(connection, "device.desired", told, json.loads(text), about=device, at=now)
            if wanted.channel is not None:
                channel = wanted.channel
                self._db.after_commit(lambda: self._moved(channel))
            self._db.after_commit(lambda: self._publish(device, wanted))

    def publish_all(self) -> None:
        """Send every desired document again: what the hub does on each connect."""
        for device in self.all():
            if device.desired:
                desired = Desired.from_wire(device.desired)
                if desired.device == device.device:
                    self._publish(device.device, desired)
                else:  # of a hub that did not name the device yet
                    self.set_desired(device.device, desired)

    def _publish(self, device: str, desired: Desired) -> None:
        if (payload := self._sealer.seal_desired(desired.to_bytes())) is not None:
            self._publisher.publish(self._topics.desired(device), payload, retain=True)

    def _upsert(self, connection: Connection, device: str, now: float, *, seen: bool, **values: Any) -> None:
        if seen:
            values["last_seen"] = now
        if values:
            changed = connection.execute(table.update().where(table.c.device == device).values(**values))
            if changed.rowcount:
                return
        elif connection.execute(select(table.c.device).where(table.c.device == device)).first():
            return
        first = {"online": False, "first_seen": now, "last_seen": now}
        connection.execute(table.insert().values(**{**first, **values, "device": device}))

    def _totals(self, connection: Connection, device: str | None = None) -> dict[str, dict[str, Any]]:
        query = select(device_totals)
        if device is not None:
            query = query.where(device_totals.c.device == device)
        return {row.device: read_counts(row, DEVICE_COUNTS) for row in connection.execute(query)}


_SKEWS = select(table.c.device, table.c.clock_skew_s).where(table.c.clock_skew_s.is_not(None))


def _device(row: Row[Any], totals: Mapping[str, Any] | None) -> Device:
    return Device(
        device=row.device,
        online=row.online,
        channel=row.channel,
        release=row.release,
        update_state=row.update_state,
        update_release=row.update_release,
        update_rollout=row.update_rollout,
        clock_skew_s=row.clock_skew_s,
        reported=json.loads(row.reported_json or "{}"),
        presence=json.loads(row.presence_json or "{}"),
        desired=json.loads(row.desired_json or "{}"),
        reported_at=row.reported_at,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        totals=totals or {**dict.fromkeys(DEVICE_COUNTS, 0), "classes": []},
    )


def _plain(value: object) -> str:
    """Byte strings in unknown fields, for JSON."""
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not plain")
