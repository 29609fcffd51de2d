"""Channels: which release a stream of devices runs, and the retained document that says so.

The document of a channel is a function of its row. Every change raises the serial, and is signed where the fleet has
signatures, in the transaction that makes it, and is published after the commit; on every connect of the hub all
documents are published again, so no broker has to remember them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, select

from cloud_hub import fits
from cloud_hub.access import audit
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.policy import ChannelPolicy
from cloud_hub.ports import Publisher, RolloutStarter, Sealer
from cloud_hub.records.database import Database
from cloud_hub.records.tables import channels as table
from cloud_hub.sealing import Unsigned
from edgeloop.protocol import ChannelDocument, ProtocolError, ReleaseRef, RolloutRef, Topics, check_name

if TYPE_CHECKING:
    from cloud_hub.releases import Releases


@dataclass(frozen=True)
class ActiveRollout:
    """A rollout as the channel document shows it: devices placed below ``fraction`` take the candidate."""

    id: str
    candidate: str
    fraction: float


@dataclass(frozen=True)
class Channel:
    """A channel's row.

    Attributes:
        name: its name.
        serial: grows with every change of the document.
        current: digest of the current release, or None.
        previous: digest of the release that was current before, or None.
        rollout: the rollout under way, or None.
        policy: what its owner decided.
        created: unix seconds.
        changed: unix seconds of the last change.
    """

    name: str
    serial: int
    current: str | None
    previous: str | None
    rollout: ActiveRollout | None
    policy: ChannelPolicy
    created: float
    changed: float

    @property
    def in_use(self) -> set[str]:
        """Digests that it may still need: current, previous and candidate."""
        candidate = None if self.rollout is None else self.rollout.candidate
        return {digest for digest in (self.current, self.previous, candidate) if digest is not None}


@dataclass(frozen=True)
class Offered:
    """What became of a release that was published into a channel."""

    serial: int
    rollout: str | None


class Channels:
    """The channels of a hub.

    Args:
        db: the records.
        releases: to name a release by its digest.
        topics: of the fleet.
        publisher: sends the documents.
        hub_url: base URL that devices fetch files from; called at each publish.
        sealer: answers for the documents.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        releases: Releases,
        topics: Topics,
        publisher: Publisher,
        *,
        hub_url: Callable[[], str],
        sealer: Sealer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._releases, self._topics = db, releases, topics
        self._publisher, self._hub_url, self._clock = publisher, hub_url, clock
        self._sealer = sealer or Unsigned()
        self._publishing = threading.Lock()

    def get(self, name: str) -> Channel:
        """The channel; raises `NotFound`."""
        if (found := self.find(name)) is None:
            raise NotFound(f"there is no channel {name[:80]!r}", "publishing a release into it makes it")
        return found

    def find(self, name: str) -> Channel | None:
        """The channel, or None."""
        with self._db.read() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).first()
        return None if row is None else _channel(row)

    def all(self) -> list[Channel]:
        """All channels by name."""
        with self._db.read() as connection:
            return [_channel(row) for row in connection.execute(select(table).order_by(table.c.name))]

    def ensure(self, name: str) -> Channel:
        """The channel, made with the default policy where it does not exist.

        Raises:
            BadRequest: it is no name for a channel.
        """
        _check_channel(name)
        with self._db.begin() as connection:
            if self.find(name) is None:
                now = self._clock()
                connection.execute(
                    table.insert().values(
                        name=name,
                        serial=self._sealer.next_serial(0),
                        policy_json=ChannelPolicy().model_dump_json(),
                        created=now,
                        changed=now,
                    )
                )
                self._tell(name)
                audit.changed(connection, "channel.create", None, {}, about=name, at=now)
        return self.get(name)

    def set_policy(self, name: str, policy: Any) -> Channel:
        """Replace the policy of a channel, which is made where it does not exist; devices are told what concerns them.

        Args:
            name: the channel.
            policy: a `ChannelPolicy`, or what its fields are made of; what is left out gets its default.

        Raises:
            BadRequest: it is no policy.
        """
        parsed = parse_policy(policy)
        with self._db.begin() as connection:
            channel, now = self.ensure(name), self._clock()
            values: dict[str, Any] = {"policy_json": parsed.model_dump_json(), "changed": now}
            concerns_devices = self._told(replace(channel, policy=parsed)) != self._told(channel)
            if concerns_devices:
                values["serial"] = self._sealer.next_serial(channel.serial)
            connection.execute(table.update().where(table.c.name == name).values(**values))
            if concerns_devices:
                self._tell(name)
            before, after = channel.policy.model_dump(mode="json"), parsed.model_dump(mode="json")
            audit.changed(connection, "channel.policy", before, after, about=name, at=now)
        return self.get(name)

    def offer(self, name: str, digest: str, rollouts: RolloutStarter) -> Offered:
        """Publish a release into a channel.

        A channel without a release takes it at once, unless its policy asks for approvals; one that has another
        release starts a rollout; one that has this release already is left alone.

        Raises:
            NotFound: there is no such release.
            Conflict: a rollout is under way, or no publisher has signed the release.
        """
        self.check_vouched(digest)
        channel = self.ensure(name)
        rollout: str | None = None
        if channel.current is None and not channel.policy.rollout.approvals:
            self.set_current(name, digest)
        elif channel.rollout is not None and channel.rollout.candidate == digest:
            rollout = channel.rollout.id  # sent twice: the first one is under way
        elif channel.current != digest or channel.rollout is not None:
            rollout = rollouts.start(name, digest)
        return Offered(self.get(name).serial, rollout)

    def check_vouched(self, digest: str) -> None:
        """Raise `Conflict` where nobody answers for a release, so that no device would take it; or `NotFound`."""
        self._sealer.check(self._releases.get(digest).ref)

    def set_current(self, name: str, digest: str) -> Channel:
        """Make ``digest`` the current release; ends the rollout that the document shows. Raises `NotFound`."""
        self._releases.get(digest)
        with self._db.begin() as connection:
            channel = self.get(name)
            previous = channel.previous if channel.current == digest else channel.current
            self._change(
                connection, channel, current=digest, previous=previous, rollout_id=None, candidate=None, fraction=None
            )
        return self.get(name)

    def set_rollout(self, name: str, rollout: ActiveRollout | None) -> Channel:
        """Show a rollout in the document, or none: devices then go back to the current release.

        Raises:
            NotFound: there is no such channel or candidate.
            Conflict: no publisher has signed the candidate.
        """
        with self._db.begin() as connection:
            channel = self.get(name)
            if rollout is None:
                self._change(connection, channel, rollout_id=None, candidate=None, fraction=None)
            else:
                candidate = self._releases.get(rollout.candidate)
                if channel.rollout is None or channel.rollout.id != rollout.id:
                    self._sealer.check(candidate.ref)
                self._change(
                    connection,
                    channel,
                    rollout_id=rollout.id,
                    candidate=rollout.candidate,
                    fraction=rollout.fraction,
                )
        return self.get(name)

    def document(self, name: str) -> ChannelDocument:
        """What devices are told; raises `NotFound`."""
        channel = self.get(name)
        rollout = channel.rollout
        return ChannelDocument(
            channel=channel.name,
            serial=channel.serial,
            current=None if channel.current is None else self._ref(channel.current),
            rollout=None
            if rollout is None
            else RolloutRef(id=rollout.id, candidate=self._ref(rollout.candidate), fraction=rollout.fraction),
            hub=self._hub_url(),
            policy=self._told(channel),
        )

    def publish(self, name: str) -> bool:
        """Send the document, retained; False when there is no connection (it is sent on the next connect).

        Nothing is sent while nobody can answer for it. Never inside a transaction: another thread may be publishing,
        and needs one.
        """
        with self._publishing:  # else an older document could be the one that the broker retains
            with self._db.begin():  # document and signature belong together; it is signed here where it is not yet
                payload = self._sealer.seal(name, self.document(name).to_bytes())
            return payload is not None and self._publisher.publish(self._topics.channel(name), payload, retain=True)

    def publish_all(self) -> None:
        """Send every document: what the hub does on each connect, since a broker may have forgotten them."""
        for channel in self.all():
            self.publish(channel.name)

    def in_use(self) -> Mapping[str, Sequence[str]]:
        """Digest of each release that a channel may still need → the channels: current, previous and candidate."""
        found: dict[str, list[str]] = {}
        for channel in self.all():
            for digest in channel.in_use:
                found.setdefault(digest, []).append(channel.name)
        return found

    def tell_anew(self, connection: Connection, name: str) -> None:
        """Tell devices what has changed besides the channel's row, in the caller's transaction: a fitted threshold."""
        serial = self._sealer.next_serial(self.get(name).serial)
        connection.execute(table.update().where(table.c.name == name).values(serial=serial, changed=self._clock()))
        self._tell(name)

    def _told(self, channel: Channel) -> dict[str, dict[str, Any]]:
        """The policy as devices are told it."""
        with self._db.read() as connection:
            thresholds = fits.thresholds(connection, channel.name, channel.policy)
        return channel.policy.for_devices(thresholds, channel.current)

    def _ref(self, digest: str) -> ReleaseRef:
        """The release as the document names it: with its path in the signed metadata."""
        ref = self._releases.get(digest).ref
        return replace(ref, target=self._sealer.target(ref))

    def _tell(self, name: str) -> None:
        """Sign the document in the transaction under way, and send it after the commit."""
        self._sealer.seal(name, self.document(name).to_bytes())
        self._db.after_commit(lambda: self.publish(name))

    def _change(self, connection: Connection, channel: Channel, **values: Any) -> None:
        """Write ``values`` with the next serial, and publish after the commit; nothing when nothing changes."""
        row = connection.execute(select(table).where(table.c.name == channel.name)).one()
        if all(getattr(row, name) == value for name, value in values.items()):
            return
        now = self._clock()
        connection.execute(
            table.update()
            .where(table.c.name == channel.name)
            .values(serial=self._sealer.next_serial(row.serial), changed=now, **values)
        )
        self._tell(channel.name)
        before = {name: getattr(row, name) for name in values}
        audit.changed(connection, "channel.release", before, values, about=channel.name, at=now)


def parse_policy(policy: Any) -> ChannelPolicy:
    """Read a channel's policy from outside.

    Raises:
        BadRequest: which field is wrong, and why.
    """
    if isinstance(policy, ChannelPolicy):
        return policy
    try:
        return ChannelPolicy.model_validate(policy)
    except ValidationError as error:
        problems = "; ".join(_problems(error))
        raise BadRequest(f"the policy is refused: {problems}", "see docs/reference/cloud-hub.md") from error


def _problems(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        yield f"{'.'.join(map(str, problem['loc'])) or 'policy'}: {problem['msg']}"


def _check_channel(name: str) -> None:
    try:
        check_name(name, "channel")
    except ProtocolError as error:
        raise BadRequest(str(error)) from error


def _channel(row: Row[Any]) -> Channel:
    rollout = None if row.rollout_id is None else ActiveRollout(row.rollout_id, row.candidate, row.fraction)
    return Channel(
        name=row.name,
        serial=row.serial,
        current=row.current,
        previous=row.previous,
        rollout=rollout,
        policy=ChannelPolicy.model_validate_json(row.policy_json),
        created=row.created,
        changed=row.changed,
    )
