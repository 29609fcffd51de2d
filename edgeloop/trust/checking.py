"""Checking metadata that came from somebody: their form, their signatures, and that a new version follows the last.

The hub takes what people signed by these rules, and the tool of publishers believes a hub by them. Devices do not: they
have the client of python-tuf, which is made for hostile mirrors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, Root, Signed, Targets, VerificationResult
from tuf.api.serialization import DeserializationError, SerializationError

from edgeloop.protocol.errors import ProtocolError
from edgeloop.records import dataclass
from edgeloop.trust import keys as key_files
from edgeloop.trust.errors import OutdatedError, TrustError, UnsignedError
from edgeloop.trust.names import (
    CHANNELS,
    RETRAINED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TOP_LEVEL,
    model_of,
    parse_channel,
    parse_release,
)
from edgeloop.trust.repository import NEWEST, delegated, keys_of, newest_counter, paths_of

MAX_BYTES = 512_000
"""Bytes of a metadata file: as python-tuf's client reads of a root, and as fit in a channel's message."""
MAX_INDEX_BYTES = 4 << 20
"""Bytes of a release's index, as devices read: see `edgeloop.protocol.ReleaseRef`."""
MAX_TARGETS = 4096
"""Targets of one role: 64 times what a model keeps."""

S = TypeVar("S", bound=Signed)
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Chain:
    """What a root vouches for, checked from top to bottom.

    Attributes:
        root: the newest version.
        targets: the newest version.
        roles: delegated role → its metadata, of those that were asked for and that have any.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    roles: Mapping[str, Metadata[Targets]]


def read_root(data: bytes) -> Metadata[Root]:
    """Read a file as ``root``, without checking signatures; raises TrustError."""
    return _read(data, ROOT, Root)


def read_targets(data: bytes, role: str = TARGETS) -> Metadata[Targets]:
    """Read a file as ``targets`` or as a delegated role, without checking signatures; raises TrustError."""
    return _read(data, role, Targets)


def pinned_root(data: bytes) -> Metadata[Root]:
    """Read the root that somebody has believed; it has to be signed by itself. Raises TrustError."""
    root = read_root(data)
    require(root.signed, ROOT, root)
    return root


def next_root(trusted: Metadata[Root], data: bytes) -> Metadata[Root]:
    """Read the version of ``root`` after a trusted one.

    Raises:
        OutdatedError: it is not the next.
        UnsignedError: signatures are missing, of the trusted version's keys or of its own.
        TrustError: its form is wrong.
    """
    root = read_root(data)
    if root.signed.version != trusted.signed.version + 1:
        raise OutdatedError(f"root {root.signed.version} does not follow {trusted.signed.version}")
    require(trusted.signed, ROOT, root)
    require(root.signed, ROOT, root)
    return root


def verify_chain(
    root: bytes,
    later_roots: Iterable[bytes],
    targets: bytes,
    roles: Mapping[str, bytes],
    *,
    now: datetime | None = None,
) -> Chain:
    """Check everything from a root that is believed down to delegated roles.

    Args:
        root: the root that is believed.
        later_roots: the versions after it, in order.
        targets: the newest ``targets``.
        roles: delegated role → its newest metadata.
        now: what had expired by then is refused; None judges no time.

    Raises:
        TrustError: a form or a signature is wrong, or something has expired.
    """
    trusted = pinned_root(root)
    for data in later_roots:
        trusted = next_root(trusted, data)
    top = read_targets(targets)
    require(trusted.signed, TARGETS, top)
    found = {}
    for role, data in roles.items():
        found[role] = read_targets(data, role)
        require(top.signed, role, found[role])
    if now is not None:
        judged: dict[str, Metadata[Any]] = {ROOT: trusted, TARGETS: top, **found}
        for role, metadata in judged.items():
            if metadata.signed.is_expired(now):
                raise TrustError(f"{role} {metadata.signed.version} expired on {metadata.signed.expires:%Y-%m-%d}")
    return Chain(trusted, top, found)


def progress(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> VerificationResult:
    """Which keys of a role have signed, and how many have to; raises TrustError for no role of the delegator."""
    keys_of(delegator, role)
    try:
        return delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except SerializationError as error:
        raise TrustError(f"{role} holds values that cannot be signed") from error


def require(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Have as many signatures as the role needs; raises UnsignedError."""
    found = progress(delegator, role, metadata)
    if found.missing:
        signed = f"{len(found.signed)} of the {found.threshold} signatures that it needs"
        raise UnsignedError(f"{role} {metadata.signed.version} has {signed}", found.missing)


def check_next(
    role: str, delegator: Root | Targets, previous: Metadata[Targets] | None, new: Metadata[Targets]
) -> None:
    """Decide whether a hub takes a new version of ``targets`` or of a publishers' role.

    Args:
        role: its name.
        delegator: the trusted root (for ``targets``) or targets.
        previous: the newest version that was taken; None when there is none.
        new: read by `read_targets`.

    Raises:
        OutdatedError: it was made on another version than the newest: somebody else was faster.
        UnsignedError: signatures are missing.
        TrustError: it changes what may not change.
    """
    last = previous.signed.version if previous else 0
    if new.signed.version != last + 1:
        raise OutdatedError(f"{role} is at version {last} here; {new.signed.version} does not follow it")
    require(delegator, role, new)
    if model_of(role) is None or previous is None:
        return
    before = previous.signed.targets
    newest = newest_counter(previous.signed)
    for path, file in new.signed.targets.items():
        if path in before and file != before[path]:
            raise TrustError(f"{path} is another release than before; a changed release needs a counter of its own")
        if path not in before and parse_release(path).counter <= newest:
            raise TrustError(f"{path} is new and not above {newest}, the newest counter; give it the next one")
    added = sorted(parse_release(path).counter for path in new.signed.targets.keys() - before.keys())
    if added != list(range(newest + 1, newest + 1 + len(added))):
        raise TrustError(f"{role} leaves out counters after {newest}: it could use them all up")
    if newest_counter(new.signed) != newest + len(added):
        raise TrustError(f"{role} says that {newest_counter(new.signed)} is its newest counter; {newest} was it before")


def walk_roots(trusted: Metadata[Root], fetch: Callable[[int], bytes | None]) -> list[tuple[bytes, Metadata[Root]]]:
    """The versions of ``root`` after a trusted one, each checked by the one before.

    Args:
        trusted: the root that is believed.
        fetch: gives the bytes of a version, or None when there is none.
    """
    found: list[tuple[bytes, Metadata[Root]]] = []
    while (data := fetch(trusted.signed.version + 1)) is not None:
        trusted = next_root(trusted, data)
        found.append((data, trusted))
    return found


def _read(data: bytes, role: str, kind: type[S]) -> Metadata[Any]:
    if len(data) > MAX_BYTES:
        raise TrustError(f"{role} has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        metadata.signed_bytes  # noqa: B018  # a number that cannot be signed is found here
    except (DeserializationError, SerializationError, RepositoryError) as error:
        raise TrustError(f"{role} is no metadata of TUF: {error.__cause__ or error}") from error
    if not isinstance(metadata.signed, kind):
        raise TrustError(f"{role} holds {metadata.signed.type}; it has to hold {kind.type}")
    if type(metadata.signed.version) is not int or metadata.signed.version >= 10**9:
        raise TrustError(f"{role} has a version that is no number below 10^9")
    try:
        _check_form(role, metadata.signed)
    except (ProtocolError, AttributeError, TypeError, KeyError) as error:
        raise TrustError(f"{role}: {error}") from error
    return metadata


def _check_form(role: str, signed: Signed) -> None:
    if isinstance(signed, Root):
        _check_root(signed)
    elif isinstance(signed, Targets) and role == TARGETS:
        _check_top(signed)
    elif isinstance(signed, Targets):
        _check_delegated(role, signed)


def _check_root(root: Root) -> None:
    if not root.consistent_snapshot:
        raise TrustError("root has to ask for consistent snapshots")
    if set(root.roles) != set(TOP_LEVEL):
        raise TrustError(f"root has to have the roles {', '.join(TOP_LEVEL)}")
    for role in TOP_LEVEL:
        _check_keys(root, role)
    people = {key.keyid for role in (ROOT, TARGETS) for key in keys_of(root, role)[0]}
    for role in (SNAPSHOT, TIMESTAMP):
        if people & {key.keyid for key in keys_of(root, role)[0]}:
            raise TrustError(f"{role} has a key that root or targets has too: the hub would hold a key of people")


def _check_top(targets: Targets) -> None:
    if targets.targets:
        raise TrustError("targets delegates and names nothing itself")
    roles = delegated(targets)
    if not {RETRAINED, CHANNELS} <= set(roles):
        raise TrustError(f"targets has to delegate to {RETRAINED} and {CHANNELS}")
    for name, role in roles.items():
        _check_keys(targets, name)
        if not role.terminating or role.paths != [paths_of(name)] or not isinstance(role, DelegatedRole):
            raise TrustError(f"{name} has to end the search and to have the path {paths_of(name)} alone")
    online = {key.keyid for role in (RETRAINED, CHANNELS) for key in keys_of(targets, role)[0]}
    for name in roles:
        if model_of(name) is not None and online & {key.keyid for key in keys_of(targets, name)[0]}:
            raise TrustError(f"{name} has a key of the hub: it could publish by itself")


def _check_delegated(role: str, targets: Targets) -> None:
    if targets.delegations is not None:
        raise TrustError(f"{role} may not delegate")
    if len(targets.targets) > MAX_TARGETS:
        raise TrustError(f"{role} names {len(targets.targets)} targets; at most {MAX_TARGETS} are read")
    newest = targets.unrecognized_fields.get(NEWEST, 0)
    if type(newest) is not int or not 0 <= newest < 10**18:
        raise TrustError(f"{role} has a newest counter that is none")
    for path, file in targets.targets.items():
        if role == CHANNELS:
            parse_channel(path)
        elif parse_release(path).role != role:
            raise TrustError(f"{role} may not name {path}")
        sha256 = file.hashes.get("sha256", "")
        if set(file.hashes) != {"sha256"} or not _SHA256.fullmatch(sha256):
            raise TrustError(f"{path} has to have a sha256 of 64 hex digits, and no other hash")
        if type(file.length) is not int or not 1 <= file.length <= MAX_INDEX_BYTES:
            raise TrustError(f"{path} has a length of {file.length}; it has to be 1 to {MAX_INDEX_BYTES}")


def _check_keys(delegator: Root | Targets, role: str) -> None:
    key_files.check_role(role, *keys_of(delegator, role))
