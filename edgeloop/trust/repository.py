"""Making the metadata of a fleet: a first version, a draft of the next, changes of a draft, signatures.

A change is made in three steps: `draft` gives the next version without signatures, functions of this module change the
draft, `sign` adds signatures. What is given in is never changed but by these functions, and only a draft is. Nothing
here checks signatures: see :mod:`edgeloop.trust.checking`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)

from edgeloop.trust import keys as key_files
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import (
    CHANNELS,
    RELEASES,
    RETRAINED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TOP_LEVEL,
    ReleasePath,
    channel_path,
    check_role,
    model_of,
    parse_release,
    release_role,
)

LIFETIME: Mapping[str, timedelta] = {
    ROOT: timedelta(days=730),
    TARGETS: timedelta(days=365),
    RELEASES: timedelta(days=365),
    RETRAINED: timedelta(days=30),
    CHANNELS: timedelta(days=30),
    SNAPSHOT: timedelta(days=30),
    TIMESTAMP: timedelta(days=7),
}
"""How long a version of a role's metadata lasts, by role; ``releases`` for every model."""

KEPT: Mapping[str, int] = {RELEASES: 64, RETRAINED: 16}
"""Newest releases of a model that a role goes on to name; fewer of retrained ones, which share one role."""


NEWEST = "x-edgeloop-newest"
"""Field of a publishers' role that has forgotten its newest release: the greatest counter that it has given."""


def lifetime(role: str) -> timedelta:
    """How long a version of this role's metadata lasts."""
    return LIFETIME[RELEASES if model_of(check_role(role)) is not None else role]


def new_root(
    keys: Mapping[str, Sequence[Key]], thresholds: Mapping[str, int] | None = None, *, now: datetime
) -> Metadata[Root]:
    """The first version of ``root``, without signatures.

    Args:
        keys: those of each of the four top-level roles.
        thresholds: signatures that a role needs, where it is not 1.
        now: it lasts from then.

    Raises:
        TrustError: a role has too few keys.
    """
    root = Root(1, expires=_expires(ROOT, now), consistent_snapshot=True)
    for role in TOP_LEVEL:
        set_keys(root, role, keys.get(role, ()), (thresholds or {}).get(role, 1))
    return Metadata(root)


def new_targets(online: Mapping[str, Key], *, now: datetime) -> Metadata[Targets]:
    """The first version of ``targets``, which delegates to the hub's roles, without signatures.

    Args:
        online: the hub's keys of ``retrained`` and ``channels``; others are ignored.
        now: it lasts from then.
    """
    targets = Targets(1, expires=_expires(TARGETS, now), delegations=Delegations({}, {}))
    for role in (RETRAINED, CHANNELS):
        if role not in online:
            raise TrustError(f"the hub's key of {role} is missing")
        set_keys(targets, role, [online[role]], 1)
    return Metadata(targets)


def new_role(role: str, *, now: datetime) -> Metadata[Targets]:
    """The first version of a delegated role, which names nothing yet, without signatures."""
    return Metadata(Targets(1, expires=_expires(role, now)))


def draft(previous: Metadata[T], role: str, *, now: datetime) -> Metadata[T]:
    """The next version, the same in everything else, without signatures."""
    signed = copy.deepcopy(previous.signed)
    signed.version += 1
    signed.expires = _expires(role, now)
    return Metadata(signed)


def set_keys(delegator: Root | Targets, role: str, keys: Sequence[Key], threshold: int) -> None:
    """Give a role its keys, in a draft of ``root`` (top-level roles) or ``targets`` (all others).

    Args:
        delegator: the draft.
        role: it is delegated here when it was not yet.
        keys: all that it has from now on.
        threshold: signatures that it needs.

    Raises:
        TrustError: fewer keys than signatures, a key twice, or no role that is delegated there.
    """
    key_files.check_role(role, keys, threshold)
    ids = [key.keyid for key in keys]
    if isinstance(delegator, Root):
        if role not in TOP_LEVEL:
            raise TrustError(f"root does not delegate to {role}; targets does")
        delegator.roles[role] = Role(ids, threshold)
        known, used = delegator.keys, delegator.roles.values()
    else:
        delegations, roles = _delegations(delegator)
        roles[role] = DelegatedRole(role, ids, threshold, True, paths=[paths_of(role)])
        known, used = delegations.keys, roles.values()
    known.update({key.keyid: key for key in keys})
    for unused in known.keys() - {keyid for each in used for keyid in each.keyids}:
        del known[unused]


def keys_of(delegator: Root | Targets, role: str) -> tuple[list[Key], int]:
    """The keys that a role has, and the signatures that it needs.

    Raises:
        TrustError: the role is not delegated here.
    """
    try:
        found = delegator.get_delegated_role(role)
        return [delegator.get_key(keyid) for keyid in found.keyids], found.threshold
    except ValueError as error:
        raise TrustError(f"{role} is no role of this {delegator.type}: {error}") from error


def allow(targets: Targets, model: str, keys: Iterable[Key], threshold: int | None = None) -> None:
    """Let more keys sign the releases of a model, in a draft of ``targets``.

    Args:
        targets: the draft.
        model: name of the model.
        keys: added to those that it has.
        threshold: signatures that a release needs; None leaves it, or is 1 for a new model.
    """
    role = release_role(model)
    has, needs = keys_of(targets, role) if role in delegated(targets) else ([], 1)
    merged = {key.keyid: key for key in (*has, *keys)}
    set_keys(targets, role, list(merged.values()), needs if threshold is None else threshold)


def revoke(delegator: Root | Targets, role: str, keyid: str) -> None:
    """Take a key from a role, in a draft of ``root`` or ``targets``.

    Raises:
        TrustError: it has no such key, or too few keys would be left for its threshold.
    """
    has, needs = keys_of(delegator, role)
    left = [key for key in has if key.keyid != keyid]
    if len(left) == len(has):
        raise TrustError(f"{role} has no key {keyid[:16]}")
    set_keys(delegator, role, left, needs)


def delegated(targets: Targets) -> Mapping[str, DelegatedRole]:
    """The roles that ``targets`` delegates to, by name."""
    return _delegations(targets)[1]


def paths_of(role: str) -> str:
    """The pattern of the paths that a delegated role may name."""
    if role == RETRAINED:
        return f"{RETRAINED}/*/*/*"
    if role == CHANNELS:
        return f"{CHANNELS}/*"
    if (model := model_of(role)) is not None:
        return f"{RELEASES}/{model}/*"
    raise TrustError(f"targets does not delegate to {role}")


def add_release(releases: Targets, model: str, digest: str, length: int) -> ReleasePath:
    """Name a release of a model in a draft of its publishers' role, with the next counter.

    Args:
        releases: the draft.
        model: name of the model.
        digest: ``sha256:…`` of the release's index.
        length: bytes of the index.
    """
    path = ReleasePath(model, newest_counter(releases) + 1)
    _add(releases, str(path), digest, length)
    return path


def add_retrained(retrained: Targets, base: ReleasePath, digest: str, length: int, *, after: int = 0) -> ReleasePath:
    """Name a retrained release in a draft of ``retrained``, with the next revision of its base.

    Args:
        retrained: the draft.
        base: the publisher's release that it comes from; for a retrained one, its base is taken.
        digest: ``sha256:…`` of the release's index.
        length: bytes of the index.
        after: highest revision of this base that was ever given, where the metadata may have forgotten it.
    """
    named = [parse_release(path) for path in retrained.targets]
    revisions = [path.revision for path in named if path.base == base.base]
    path = ReleasePath(base.model, base.counter, max(after, *revisions, 0) + 1)
    _add(retrained, str(path), digest, length)
    return path


def newest_counter(role: Targets) -> int:
    """The greatest counter that a publishers' role has ever given; 0 when it gave none."""
    named = max((parse_release(path).counter for path in role.targets), default=0)
    return max(named, int(role.unrecognized_fields.get(NEWEST, 0)))


def forget(role: Targets, path: str) -> None:
    """Name a release no longer, in a draft of a publishers' role; its counter is not given again.

    Raises:
        TrustError: the role does not name it.
    """
    newest = newest_counter(role)
    if role.targets.pop(path, None) is None:
        raise TrustError(f"it does not name {path}")
    role.unrecognized_fields[NEWEST] = newest


def find_release(role: Targets, digest: str) -> ReleasePath | None:
    """The newest path under which a role names this release; None when it does not."""
    sha256 = digest.removeprefix("sha256:")
    paths = [parse_release(path) for path, file in role.targets.items() if file.hashes.get("sha256") == sha256]
    return max(paths, key=lambda path: path.order, default=None)


def set_channel(channels: Targets, channel: str, document: bytes | None) -> None:
    """Name a channel's document in a draft of ``channels``; None forgets the channel."""
    path = channel_path(channel)
    if document is None:
        channels.targets.pop(path, None)
    else:
        channels.targets[path] = TargetFile.from_data(path, document, ["sha256"])


def prune(role: Targets, named: Collection[str], kept: int) -> list[str]:
    """Forget old releases, in a draft of a role that names releases.

    Args:
        role: the draft.
        named: paths that stay whatever their age: what a channel names, and the bases of it.
        kept: newest releases of each model that stay.

    Returns:
        The paths that it names no longer.
    """
    models: dict[str, list[ReleasePath]] = {}
    for path in map(parse_release, role.targets):
        models.setdefault(path.model, []).append(path)
    gone: list[str] = []
    for paths in models.values():
        newest_first = sorted(paths, key=lambda path: path.order, reverse=True)
        gone += [str(path) for path in newest_first[kept:] if str(path) not in named]
    for old in gone:
        del role.targets[old]
    return gone


def new_snapshot(
    previous: Metadata[Snapshot] | None, files: Mapping[str, bytes], *, version: int | None = None, now: datetime
) -> Metadata[Snapshot]:
    """The next version of ``snapshot``, without signatures.

    Args:
        previous: the newest version; what it lists stays listed (clients refuse anything else).
        files: role → the metadata file's bytes, of every role but root, snapshot and timestamp that has changed.
        version: the version, where it is not the next.
        now: it lasts from then.

    Raises:
        TrustError: a role's version would go back.
    """
    meta = copy.deepcopy(previous.signed.meta) if previous else {}
    for role, data in files.items():
        name, found = f"{check_role(role)}.json", read_version(data)
        if name in meta and found < meta[name].version:
            raise TrustError(f"{role} would go back from version {meta[name].version} to {found}")
        meta[name] = MetaFile.from_data(found, data, ["sha256"])
    if f"{TARGETS}.json" not in meta:
        raise TrustError("a snapshot without targets cannot be read by anybody")
    next_version = version or (previous.signed.version + 1 if previous else 1)
    return Metadata(Snapshot(next_version, expires=_expires(SNAPSHOT, now), meta=meta))


def new_timestamp(
    previous: Metadata[Timestamp] | None, snapshot: bytes, *, version: int | None = None, now: datetime
) -> Metadata[Timestamp]:
    """The next version of ``timestamp`` for the bytes of a snapshot, without signatures."""
    meta = MetaFile.from_data(read_version(snapshot), snapshot, ["sha256"])
    next_version = version or (previous.signed.version + 1 if previous else 1)
    return Metadata(Timestamp(next_version, expires=_expires(TIMESTAMP, now), snapshot_meta=meta))


def sign(metadata: Metadata[T], *signers: Signer) -> Metadata[T]:
    """Add signatures; those that are there stay.

    Returns:
        The same metadata.

    Raises:
        TrustError: a signer could not (a device that is not there, a service that refused).
    """
    payload = metadata.signed_bytes
    for signer in signers:
        try:
            signature = metadata.sign(signer, append=True)
            signer.public_key.verify_signature(signature, payload)
        except (UnsignedMetadataError, UnverifiedSignatureError) as error:
            metadata.signatures.pop(signer.public_key.keyid, None)
            cause = error.__cause__ or error  # a device's own error often has a name and no text
            told = f"{type(cause).__name__} {cause}".rstrip()
            raise TrustError(f"the key {signer.public_key.keyid[:8]} did not sign: {told}") from error
    return metadata


def read_version(data: bytes) -> int:
    """The version in a metadata file's bytes, which are believed."""
    return Metadata.from_bytes(data).signed.version


def _add(role: Targets, path: str, digest: str, length: int) -> None:
    role.targets[path] = TargetFile(length, {"sha256": digest.removeprefix("sha256:")}, path)


def _delegations(targets: Targets) -> tuple[Delegations, dict[str, DelegatedRole]]:
    if targets.delegations is None or targets.delegations.roles is None:
        raise TrustError("these targets delegate nothing: they are not those of a fleet")
    return targets.delegations, targets.delegations.roles


def _expires(role: str, now: datetime) -> datetime:
    return now.astimezone(UTC) + lifetime(role)
