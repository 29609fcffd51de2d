"""Webhooks: somebody else's address is told of every alarm, signed, at least once.

What is to be told is written in the transaction that changes the alarm, so a hub that is killed tells it after its
restart. The form is that of Standard Webhooks (https://www.standardwebhooks.com): ``webhook-id`` stays the same over
all tries, so a receiver knows what it has seen; ``webhook-signature`` is an HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, func, select

from cloud_hub.access import audit
from cloud_hub.alarms import Alarm
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records.database import Database
from cloud_hub.records.decision_tables import webhook_deliveries as queue
from cloud_hub.records.decision_tables import webhooks as table

log = logging.getLogger(__name__)

TEST = "webhook.test"
WAITING, DELIVERED, GIVEN_UP = "waiting", "delivered", "given up"
SECRET_PREFIX = "whsec_"
#: Bytes of a secret, as the standard has it.
SECRET_BYTES = (24, 64)
#: Full jitter (Brooker, AWS 2015): the wait before try k + 1 is uniform in [0, min(longest, first · 2^k)], seconds.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 3600.0
#: With these waits the last try comes after about four hours in the mean.
MOST_ATTEMPTS = 20
TIMEOUT_S = 10.0
#: Webhooks that are told at the same time: one that hangs holds up the others for no longer than its timeout.
SIDE_BY_SIDE = 4
#: Deliveries that have ended are kept, so that a person can see them.
KEPT_S = 30 * 86_400.0
#: The receiver says that it wants no more.
GONE = 410


@dataclass(frozen=True)
class Webhook:
    """An address that is told of alarms.

    Attributes:
        id: a number that grows.
        url: where to.
        secret: what messages are signed with: ``whsec_`` and base64.
        channel: only alarms of this channel, or None for all.
        created: unix seconds.
        stopped: why nothing is sent there any more, or "".
    """

    id: int
    url: str
    secret: str
    channel: str | None
    created: float
    stopped: str


@dataclass(frozen=True)
class Delivery:
    """One message to one webhook.

    Attributes:
        id: a number that grows.
        webhook: id of the webhook.
        message: ``webhook-id`` of the message, the same over all tries.
        event: such as ``alarm.raised``.
        body: what is sent, JSON.
        state: ``waiting``, ``delivered`` or ``given up``.
        created: unix seconds.
        due: unix seconds of the next try.
        attempts: tries so far.
        ended: unix seconds, or None.
        outcome: what the last try brought, a sentence.
    """

    id: int
    webhook: int
    message: str
    event: str
    body: bytes
    state: str
    created: float
    due: float
    attempts: int
    ended: float | None
    outcome: str


class Webhooks:
    """The webhooks of a hub, and what waits to be told.

    Args:
        db: the records.
        clock: unix seconds.
        chance: a number in [0, 1), for the jitter.
    """

    def __init__(
        self, db: Database, *, clock: Callable[[], float] = time.time, chance: Callable[[], float] = random.random
    ) -> None:
        self._db, self._clock, self._chance = db, clock, chance

    # ── who is told ───────────────────────────────────────────────────────────────────────────

    def add(self, url: str, channel: str | None = None, secret: str | None = None) -> Webhook:
        """Tell this address from now on.

        Args:
            url: http or https.
            channel: only alarms of this channel.
            secret: what to sign with; None makes one.

        Raises:
            BadRequest: the address or the secret is none.
        """
        _check_url(url)
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode() if secret is None else secret
        _key(secret)
        values = {"url": url, "secret": secret, "channel": channel, "created": self._clock(), "stopped": ""}
        with self._db.begin() as connection:
            found = connection.execute(table.insert().values(**values).returning(table)).one()
            after = {"url": url, "channel": channel}
            audit.changed(connection, "webhook.add", None, after, about=str(found.id), at=found.created)
        return _webhook(found)

    def all(self) -> Sequence[Webhook]:
        """Every webhook, the oldest first."""
        with self._db.read() as connection:
            return [_webhook(row) for row in connection.execute(select(table).order_by(table.c.id))]

    def get(self, webhook: int) -> Webhook:
        """One webhook; raises `NotFound`."""
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.id == webhook)).first()
        if row is None:
            raise NotFound(f"there is no webhook {webhook}", "GET /api/v1/webhooks lists them")
        return _webhook(row)

    def remove(self, webhook: int) -> None:
        """Tell this address nothing any more; raises `NotFound`."""
        found = self.get(webhook)
        with self._db.begin() as connection:
            connection.execute(queue.delete().where(queue.c.webhook == webhook))
            connection.execute(table.delete().where(table.c.id == webhook))
            before = {"url": found.url, "channel": found.channel}
            audit.changed(connection, "webhook.remove", before, None, about=str(webhook), at=self._clock())

    def deliveries(self, webhook: int, limit: int = 100) -> Sequence[Delivery]:
        """What was sent to a webhook or waits to be, the newest first; raises `NotFound`."""
        self.get(webhook)
        query = select(queue).where(queue.c.webhook == webhook).order_by(queue.c.id.desc()).limit(limit)
        with self._db.read() as connection:
            return [_delivery(row) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """Deliveries by state, of the last `KEPT_S`."""
        counts = dict.fromkeys((WAITING, DELIVERED, GIVEN_UP), 0)
        with self._db.read() as connection:
            query = select(queue.c.state, func.count().label("number")).group_by(queue.c.state)
            return counts | {row.state: row.number for row in connection.execute(query)}

    # ── what is told ──────────────────────────────────────────────────────────────────────────

    def tell_alarm(self, connection: Connection, event: str, alarm: Alarm) -> None:
        """Write down that an alarm's webhooks have to be told, inside the caller's transaction."""
        body = _body(event, self._clock(), {**asdict(alarm), "certainty": alarm.certainty})
        for row in connection.execute(select(table).where(table.c.stopped == "").order_by(table.c.id)).all():
            if row.channel in (None, alarm.channel):
                self._enqueue(connection, row.id, event, body)

    def test(self, webhook: int) -> Delivery:
        """Send a message that means nothing, to see whether it arrives; raises `NotFound`."""
        found = self.get(webhook)
        with self._db.begin() as connection:
            body = _body(TEST, self._clock(), {"webhook": found.id})
            self._enqueue(connection, found.id, TEST, body)
        return self.deliveries(webhook, 1)[0]

    def tick(self) -> None:
        """Try what is due, the oldest of each webhook, and forget what ended long ago."""
        now = self._clock()
        with self._db.read() as connection:
            query = select(queue).where(queue.c.state == WAITING, queue.c.due <= now).order_by(queue.c.id)
            due = list({row.webhook: _delivery(row) for row in reversed(connection.execute(query).all())}.values())
            old = connection.execute(select(queue.c.id).where(queue.c.ended < now - KEPT_S).limit(1)).first()
        if old is not None:
            with self._db.begin() as connection:
                connection.execute(queue.delete().where(queue.c.ended < now - KEPT_S))
        if due:
            with ThreadPoolExecutor(SIDE_BY_SIDE, "webhooks") as pool:
                list(pool.map(self._try, due))

    def _enqueue(self, connection: Connection, webhook: int, event: str, body: bytes) -> None:
        now = self._clock()
        values = {
            "webhook": webhook,
            "message": f"msg_{secrets.token_hex(16)}",
            "event": event,
            "body": body,
            "state": WAITING,
            "created": now,
            "due": now,
            "attempts": 0,
            "outcome": "",
        }
        connection.execute(queue.insert().values(**values))

    def _try(self, delivery: Delivery) -> None:
        try:
            webhook = self.get(delivery.webhook)
        except NotFound:
            return  # it was removed meanwhile, and its messages with it
        status, told = _post(webhook, delivery, int(time.time()))
        now, attempts = self._clock(), delivery.attempts + 1
        values: dict[str, Any] = {"attempts": attempts, "outcome": told}
        if 200 <= status < 300:
            values |= {"state": DELIVERED, "ended": now}
        elif status == GONE or attempts >= MOST_ATTEMPTS:
            values |= {"state": GIVEN_UP, "ended": now}
            log.error("webhook %d was not told of %s: %s; given up", webhook.id, delivery.event, told)
        else:
            longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**delivery.attempts)
            values["due"] = now + longest * self._chance()
        with self._db.begin() as connection:
            connection.execute(queue.update().where(queue.c.id == delivery.id).values(**values))
            if status == GONE:
                why = "the receiver answered 410: it wants no more"
                connection.execute(table.update().where(table.c.id == webhook.id).values(stopped=why))
                waiting = (queue.c.webhook == webhook.id) & (queue.c.state == WAITING)
                connection.execute(queue.update().where(waiting).values(state=GIVEN_UP, ended=now, outcome=why))


def sign(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: ``v1,`` and base64 of an HMAC-SHA256 over ``id.timestamp.body``."""
    signed = hmac.new(_key(secret), f"{message}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def _post(webhook: Webhook, delivery: Delivery, timestamp: int) -> tuple[int, str]:
    """(status or 0, what happened)."""
    headers = {
        "content-type": "application/json",
        "user-agent": "edgeloop-cloud-hub",
        "webhook-id": delivery.message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(webhook.secret, delivery.message, timestamp, delivery.body),
    }
    import httpx  # a tenth of what a hub imports: one that tells nobody does without

    try:
        # What it says beyond its status is not read: it can be of any length.
        with httpx.stream("POST", webhook.url, content=delivery.body, headers=headers, timeout=TIMEOUT_S) as answer:
            return answer.status_code, f"it answered {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return 0, f"{type(error).__name__}: {error}"[:500]


def _body(event: str, now: float, data: dict[str, Any]) -> bytes:
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"type": event, "timestamp": at, "data": data}).encode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    least, most = SECRET_BYTES
    if not secret.startswith(SECRET_PREFIX) or not least <= len(key) <= most:
        raise BadRequest(
            f"the secret is not {SECRET_PREFIX} with {least} to {most} bytes in base64",
            "leave it out: the hub makes one",
        )
    return key


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or len(url) > 2000 or not (url.isascii() and url.isprintable()) or " " in url:
        raise BadRequest(f"{url[:80]!r} is no address", "give one that begins with https:// or http://")


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(row.id, row.url, row.secret, row.channel, row.created, row.stopped)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**{**row._mapping, "body": bytes(row.body)})
