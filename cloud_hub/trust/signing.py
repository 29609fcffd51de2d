"""What the hub signs, decided: which of its roles need a new version, and those versions, made and signed.

Pure but for the signers: the same files, keys and time give the same decisions, so it does not matter where a hub was
stopped. Nothing is remembered but the newest file of each role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from cloud_hub.trust.key_files import OnlineKey
from edgeloop.trust import checking, repository
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import CHANNELS, ONLINE, RETRAINED, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

#: 2026-01-01T00:00Z, unix seconds: no hub has signed anything before.
BEGINNING = 1_767_225_600
#: A role is signed again when so much of its life has passed.
RENEWED_AFTER = 0.5
_COMPACT = JSONSerializer(compact=True)


class CannotSign(Exception):
    """The hub has no key that the fleet's metadata name for a role; the message says which."""


def next_number(last: int, now: float) -> int:
    """The number after ``last`` of something that devices never let go back.

    It is the time in seconds, so that a hub whose records were restored from a copy goes on above whatever it told
    devices since; and one more where the clock is behind.
    """
    return max(last + 1, int(now) - BEGINNING)


@lru_cache(256)
def parse(content: bytes) -> Metadata[Any]:
    """A file that was taken or signed before. The same one is read again and again; nobody changes what it returns."""
    return Metadata.from_bytes(content)


@lru_cache(256)
def is_signed(delegator: bytes, role: str, content: bytes) -> bool:
    """Whether enough of the keys that the delegator's file names have signed the role's file."""
    try:
        checking.require(parse(delegator).signed, role, parse(content))
    except TrustError:
        return False
    return True


def delegator_of(role: str) -> str:
    """The role that names the keys of this one."""
    return ROOT if role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP) else TARGETS


def usable(keys: Sequence[OnlineKey], delegator: Root | Targets, role: str) -> list[OnlineKey]:
    """The hub's keys that a role is signed with, the oldest first.

    Raises:
        CannotSign: there are fewer than the role needs.
    """
    try:
        named, threshold = repository.keys_of(delegator, role)
    except TrustError as error:
        raise CannotSign(str(error)) from error
    ids = {key.keyid for key in named}
    found = [key for key in keys if key.role == role and key.keyid in ids]
    if len(found) < threshold:
        raise CannotSign(
            f"{delegator.type} {delegator.version} asks for {threshold} signatures of {role}, and this hub has "
            f"{len(found)} of its keys"
        )
    return found


def problem(newest: Mapping[str, bytes], keys: Sequence[OnlineKey]) -> str:
    """Why the hub cannot sign, or ""."""
    for role in (ROOT, TARGETS):
        if role not in newest:
            return f"there is no {role} yet"
    for role in ONLINE:
        try:
            usable(keys, parse(newest[delegator_of(role)]).signed, role)
        except CannotSign as error:
            return str(error)
    return ""


def bring_up(
    newest: Mapping[str, bytes],
    keys: Sequence[OnlineKey],
    now: datetime,
    wanted: Mapping[str, Mapping[str, TargetFile]] | None = None,
) -> dict[str, bytes]:
    """Sign whatever of the hub's roles is not as it has to be.

    Args:
        newest: role → its newest file, with root and targets.
        keys: the hub's.
        now: for expiry and versions.
        wanted: the targets that ``channels`` or ``retrained`` have to name; what is left out stays as it is.

    Returns:
        Role → its new file, in the order of being written; empty when everything is as it has to be.

    Raises:
        CannotSign: a key is missing.
    """
    files, made = dict(newest), dict[str, bytes]()

    def put(role: str, metadata: Metadata[Any]) -> None:
        signers = usable(keys, parse(files[delegator_of(role)]).signed, role)
        repository.sign(metadata, *(key.signer for key in signers))
        files[role] = made[role] = metadata.to_bytes(_COMPACT)

    for role in (CHANNELS, RETRAINED):
        before = files.get(role)
        targets = (wanted or {}).get(role)
        changed = targets is not None and (before is None or parse(before).signed.targets != targets)
        if changed or _due(files, role, now):
            put(role, _targets(role, before, targets, now))
    listed = {role: data for role, data in files.items() if role not in (ROOT, SNAPSHOT, TIMESTAMP)}
    before = files.get(SNAPSHOT)
    if before is None or _due(files, SNAPSHOT, now) or _versions(listed) != _listed(parse(before).signed):
        snapshot: Metadata[Snapshot] | None = None if before is None else parse(before)
        version = _next_version(before, now)
        put(SNAPSHOT, repository.new_snapshot(snapshot, listed, version=version, now=now))
    before = files.get(TIMESTAMP)
    if SNAPSHOT in made or _due(files, TIMESTAMP, now):
        timestamp: Metadata[Timestamp] | None = None if before is None else parse(before)
        version = _next_version(before, now)
        put(TIMESTAMP, repository.new_timestamp(timestamp, files[SNAPSHOT], version=version, now=now))
    return made


def _targets(
    role: str, before: bytes | None, targets: Mapping[str, TargetFile] | None, now: datetime
) -> Metadata[Targets]:
    fresh = repository.new_role(role, now=now) if before is None else repository.draft(parse(before), role, now=now)
    fresh.signed.version = _next_version(before, now)
    if targets is not None:
        fresh.signed.targets = dict(targets)
    return fresh


def _due(files: Mapping[str, bytes], role: str, now: datetime) -> bool:
    """Whether a role has no file, or one that is old, or one that its keys have not signed."""
    content = files.get(role)
    if content is None or not is_signed(files[delegator_of(role)], role, content):
        return True
    return bool(parse(content).signed.expires - now < repository.lifetime(role) * (1 - RENEWED_AFTER))


def _next_version(before: bytes | None, now: datetime) -> int:
    return next_number(0 if before is None else parse(before).signed.version, now.timestamp())


def _versions(files: Mapping[str, bytes]) -> dict[str, int]:
    return {f"{role}.json": parse(content).signed.version for role, content in files.items()}


def _listed(snapshot: Snapshot) -> dict[str, int]:
    return {name: file.version for name, file in snapshot.meta.items()}
