"""The hub's part in a fleet's signed metadata: takes what people sign, signs the rest, gives both to devices.

A change of a channel, the metadata that vouch for it, the snapshot and the timestamp are written in one transaction, so
a hub that is killed has all of it or nothing; and everything that is signed is a function of the records, so whatever a
killed hub has not sent is sent by the next.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from tuf.api.metadata import Metadata, TargetFile, Targets

from cloud_hub.access import audit
from cloud_hub.errors import Conflict, NotFound
from cloud_hub.records.database import Database
from cloud_hub.trust import records
from cloud_hub.trust.key_files import KeyFiles
from cloud_hub.trust.records import Stored
from cloud_hub.trust.signing import bring_up, is_signed, next_number, parse, problem, usable
from cloud_hub.trust.taking import Offer, take
from cloud_hub.trust.view import TrustView, view
from edgeloop.protocol import MAX_BYTES, ChannelDocument, ProtocolError, ReleaseRef, SignedChannel, SignedDesired
from edgeloop.trust import repository
from edgeloop.trust.names import (
    CHANNELS,
    ONLINE,
    RETRAINED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    ReleasePath,
    file_name,
    parse_file,
    parse_release,
    release_role,
)

log = logging.getLogger(__name__)

#: What a `SignedChannel` needs besides its metadata: names, lengths, the document's frame.
_FRAME_BYTES = 16_384


@dataclass(frozen=True)
class Accepted:
    """A file that was taken: role, version, and unix seconds of its expiry."""

    role: str
    version: int
    expires: float


class OnlineTrust:
    """What the hub of a fleet with signatures answers for; a `Sealer`.

    Args:
        db: the records.
        keys: the hub's.
        clock: unix seconds.

    Every method that signs raises `StartError` where a key cannot be read.
    """

    def __init__(self, db: Database, keys: KeyFiles, *, clock: Callable[[], float] = time.time) -> None:
        self._db, self.keys, self._clock = db, keys, clock
        self._publishers: list[Callable[[], None]] = []
        self._keepers: list[Callable[[], Mapping[str, Sequence[str]]]] = []
        self._warned = dict[str, int]()

    def tells(self, publish_all: Callable[[], None]) -> None:
        """Have ``publish_all()`` send its documents again when what vouches for all of them has changed."""
        self._publishers.append(publish_all)

    def keeps(self, in_use: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        """Keep what ``in_use()`` says installable: digest of a release → the channels that may need it."""
        self._keepers.append(in_use)

    # ── a Sealer ──────────────────────────────────────────────────────────────────────────────

    def target(self, release: ReleaseRef) -> str:
        """Path under which the signed metadata name the release; "" where they do not."""
        with self._db.read() as connection:
            return path_of(connection, release) or ""

    def check(self, release: ReleaseRef) -> None:
        """Raise Conflict when no publisher has signed the release: no device would take it."""
        with self._db.read() as connection:
            if path_of(connection, release) is None:
                raise Conflict(
                    f"no publisher of {release.name} has signed this release: {release.digest}",
                    "model-export publish signs it with --key; GET /api/v1/trust says who may",
                )

    def next_serial(self, last: int) -> int:
        """The serial of a document that replaces the one with ``last``: above whatever devices may have seen."""
        return next_number(last, self._clock())

    def seal(self, channel: str, document: bytes) -> bytes | None:
        """Vouch for a channel's document, in the caller's transaction; None while nothing can be signed."""
        with self._db.begin() as connection:
            if not self._sign(connection, channel=(channel, document)):
                return None
            return self._bundle(connection, document)

    def seal_desired(self, document: bytes) -> bytes | None:
        """Vouch for what is wanted of a device: a signature of the newest key of ``channels``."""
        with self._db.read() as connection:
            newest, keys = _contents(records.newest(connection)), self.keys.all()
        if problem(newest, keys):
            return None
        signer = usable(keys, parse(newest[TARGETS]).signed, CHANNELS)[-1].signer
        return SignedDesired(document, bytes.fromhex(signer.sign(document).signature)).to_bytes()

    def adopt(self, base: ReleaseRef, release: ReleaseRef) -> None:
        """Vouch for a release that the hub has made from ``base``, in the caller's transaction.

        Raises:
            Conflict: nothing vouches for the base, or the hub cannot sign.
        """
        with self._db.begin() as connection:
            path = path_of(connection, base)
            if path is None or str(parse_release(path).base) not in _named(connection, parse_release(path).base.role):
                raise Conflict(f"no publisher has signed {base.digest}, so nothing made from it can be installed")
            self._adopt(connection, parse_release(path), release)

    # ── what people sign ──────────────────────────────────────────────────────────────────────

    def accept(self, role: str, content: bytes, *, restored: bool = False) -> Accepted:
        """Take a file that people have signed, and sign what follows from it, in one transaction.

        Args:
            role: ``root``, ``targets`` or ``releases.<model>``.
            content: the file.
            restored: it may skip versions that this hub has lost.

        Raises:
            TooLarge, BadRequest, Conflict: as `cloud_hub.trust.taking.take` says.
        """
        with self._db.begin() as connection:
            stored = records.newest(connection)
            newest = _contents(stored)
            if newest.get(role) == content:
                return _accepted(role, parse(content))
            in_use, now = self._in_use(newest), self._now(stored)
            found = take(Offer(role, content, restored), newest, self.keys.all(), in_use, now)
            records.add(connection, role, Stored(found.signed.version, content, self._clock()))
            after = {"version": found.signed.version, "sha256": hashlib.sha256(content).hexdigest()}
            audit.changed(connection, "trust.metadata", None, after, about=role)
            self._sign(connection)
            self._db.after_commit(self._changed)
        log.info("took %s %d, which lasts until %s", role, found.signed.version, found.signed.expires.date())
        return _accepted(role, found)

    def file(self, name: str) -> bytes:
        """A metadata file by its name; raises `NotFound`."""
        try:
            role, version = parse_file(name)
        except ProtocolError as error:
            raise NotFound(str(error)) from error
        return self.newest(role, version)

    def newest(self, role: str, version: int | None = None) -> bytes:
        """The newest file of a role, or this version of it; raises `NotFound`."""
        with self._db.read() as connection:
            found = records.find(connection, role, version)
        if found is None:
            which = "" if version is None else f" {version}"
            raise NotFound(f"there is no {role[:80]}{which}", "GET /api/v1/trust lists what there is")
        return found

    def version(self, role: str) -> int:
        """The newest version of a role; 0 while there is none."""
        with self._db.read() as connection:
            found = records.find(connection, role)
        return 0 if found is None else int(parse(found).signed.version)

    def view(self) -> TrustView:
        """Who signs what, until when, and what has to be done."""
        with self._db.read() as connection:
            stored = records.newest(connection)
        newest = _contents(stored)
        return view(newest, self.keys.all(), self._in_use(newest), self._now(stored))

    def tick(self) -> None:
        """Sign again what is due; publish it. Drop keys that nothing names any more."""
        with self._db.begin() as connection:
            if self._sign(connection, tell=True):
                self._db.after_commit(self._drop_keys)
        self._warn()

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _now(self, newest: Mapping[str, Stored]) -> datetime:
        """The time, but never before people's newest metadata came: a clock that was reset must not sign the past."""
        received = [stored.received for role, stored in newest.items() if role not in ONLINE]
        return datetime.fromtimestamp(max([self._clock(), *received]), UTC)

    def _sign(
        self,
        connection: Connection,
        channel: tuple[str, bytes] | None = None,
        retrained: Mapping[str, TargetFile] | None = None,
        *,
        tell: bool = False,
    ) -> bool:
        """Bring the hub's roles up to date; False, and nothing is done, while that cannot be."""
        stored, keys = records.newest(connection), self.keys.all()
        newest = _contents(stored)
        if problem(newest, keys):
            return False
        wanted: dict[str, Mapping[str, TargetFile]] = {}
        if channel is not None:
            draft = _draft(newest, CHANNELS)
            repository.set_channel(draft, *channel)
            wanted[CHANNELS] = draft.targets
        if retrained is not None:
            wanted[RETRAINED] = retrained
        made = bring_up(newest, keys, self._now(stored), wanted)
        for role, content in made.items():
            records.add(connection, role, Stored(parse(content).signed.version, content, self._clock()))
        if made and tell:
            log.info("signed %s again", ", ".join(made))
            self._db.after_commit(self._changed)
        return True

    def _adopt(self, connection: Connection, base: ReleasePath, release: ReleaseRef) -> None:
        newest = _contents(records.newest(connection))
        draft = _draft(newest, RETRAINED)
        last = next_number(0, self._clock()) - 1
        path = repository.add_retrained(draft, base, release.digest, release.index_size, after=last)
        repository.prune(draft, self._in_use(newest), repository.KEPT[RETRAINED])
        if not self._sign(connection, retrained=draft.targets):
            raise Conflict(f"the hub cannot sign: {problem(newest, self.keys.all())}", "see cloud-hub trust show")
        log.info("signed the retrained release %s", path)

    def _bundle(self, connection: Connection, document: bytes) -> bytes:
        """The document with every file that a device needs to verify it, the largest left out where it is too much."""
        newest, roots = records.newest(connection), records.roots(connection)
        files = {file_name(ROOT, version): content for version, content in roots.items() if version > 1}
        for role in (TIMESTAMP, SNAPSHOT, TARGETS, CHANNELS, *_roles(ChannelDocument.from_bytes(document))):
            if (stored := newest.get(role)) is not None:
                files[file_name(role, stored.version)] = stored.content
        room = MAX_BYTES - _FRAME_BYTES - len(document)
        while sum(map(len, files.values())) > room:
            del files[max(files, key=lambda name: len(files[name]))]  # a device asks for it at /tuf/
        return SignedChannel(document, files).to_bytes()

    def _in_use(self, newest: Mapping[str, bytes]) -> dict[str, list[str]]:
        """Path of each release that is in use, and of the base of each → who names it."""
        found = dict[str, list[str]]()
        named = dict[str, list[str]]()
        for keeper in self._keepers:
            for digest, users in keeper().items():
                named.setdefault(digest, []).extend(users)
        for role, content in newest.items():
            if role == RETRAINED or role.startswith("releases."):
                for path, target in parse(content).signed.targets.items():
                    digest = f"sha256:{target.hashes['sha256']}"
                    for each in {path, str(parse_release(path).base)} if digest in named else ():
                        found.setdefault(each, []).extend(named[digest])
        return found

    def _changed(self) -> None:
        for publish_all in self._publishers:
            publish_all()

    def _warn(self) -> None:
        """Log what people have to do, once a day each."""
        today = int(self._clock() // 86_400)
        for warning in self.view().warnings:
            if self._warned.get(warning) != today:
                log.warning("trust: %s", warning)
                self._warned = {**self._warned, warning: today}

    def _drop_keys(self) -> None:
        """Drop keys older than those that sign."""
        with self._db.read() as connection:
            newest = _contents(records.newest(connection))
        keys = self.keys.all()
        for key in keys:
            delegator = parse(newest[ROOT if key.role in (SNAPSHOT, TIMESTAMP) else TARGETS]).signed
            if key.number < usable(keys, delegator, key.role)[0].number:
                self.keys.drop(key)


def _contents(newest: Mapping[str, Stored]) -> dict[str, bytes]:
    return {role: stored.content for role, stored in newest.items()}


def _draft(newest: Mapping[str, bytes], role: str) -> Targets:
    """A copy of what the role says now, to be changed."""
    now = datetime.now(UTC)
    signed = (
        repository.draft(parse(newest[role]), role, now=now) if role in newest else repository.new_role(role, now=now)
    ).signed
    assert isinstance(signed, Targets)
    return signed


def _named(connection: Connection, role: str) -> set[str]:
    content = records.find(connection, role)
    return set() if content is None else set(parse(content).signed.targets)


def path_of(connection: Connection, release: ReleaseRef) -> str | None:
    """The newest path under which a role that may names the release, with its size; None where none does."""
    newest = _contents(records.newest(connection))
    try:
        roles = (release_role(release.name), RETRAINED)
    except ProtocolError:
        return None  # a name that no role can have
    found = []
    for role in roles:
        content = newest.get(role)
        if content is None or TARGETS not in newest or not is_signed(newest[TARGETS], role, content):
            continue
        signed = parse(content).signed
        for path, target in signed.targets.items():
            named = parse_release(path)
            if (
                target.hashes.get("sha256") == release.digest.removeprefix("sha256:")
                and target.length == release.index_size
                and named.model == release.name
            ):
                found.append(named)
    return str(max(found, key=lambda path: path.order)) if found else None


def signers_of(connection: Connection, path: str) -> tuple[str, ...]:
    """Ids of the keys that have signed the metadata that name a release at this path."""
    content = records.find(connection, parse_release(path).role)
    return () if content is None else tuple(parse(content).signatures)


def _roles(document: ChannelDocument) -> set[str]:
    """The roles that vouch for the releases in a document, and for the bases of retrained ones."""
    refs = [document.current, None if document.rollout is None else document.rollout.candidate]
    paths = [parse_release(ref.target) for ref in refs if ref is not None and ref.target]
    return {role for path in paths for role in (path.role, path.base.role)}


def _accepted(role: str, found: Metadata[Any]) -> Accepted:
    return Accepted(role, found.signed.version, found.signed.expires.timestamp())
