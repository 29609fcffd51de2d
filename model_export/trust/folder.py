"""The folder that people pass around: a fleet's offline metadata, ``<version>.<role>.json``, and public keys.

The newest file of a role may still lack signatures: it is then a draft, which everybody adds theirs to. What a hub has
taken is no draft whatever its signatures are worth since: ``taken.json`` has the versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Targets

from edgeloop.protocol import ProtocolError
from edgeloop.trust import checking, repository
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import (
    OFFLINE,
    ROOT,
    TARGETS,
    TOP_LEVEL,
    check_role,
    file_name,
    model_of,
    parse_file,
    parse_release,
)
from model_export.errors import DestinationError, ExportError, RequestError, UntrustedError
from model_export.trust.key_files import PUBLIC, PublicKey, read_public, write_public

KEYS, TAKEN = "keys", "taken.json"
"""Subfolder of the public keys; role → newest version that a hub has, as far as this folder knows."""


@dataclass(frozen=True)
class RoleState:
    """How far a role's newest file is.

    Attributes:
        role, version, expires: of the newest file.
        threshold: signatures that it needs.
        signed, unsigned: keys that have signed, and that could: name and begin of the id.
        missing: signatures that it still needs; 0 when it is whole.
    """

    role: str
    version: int
    expires: datetime
    threshold: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **vars(self),
            "expires": self.expires.isoformat(),
            "signed": [*self.signed],
            "unsigned": [*self.unsigned],
        }


class TrustFolder:
    """Offline metadata in a folder.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def versions(self, role: str) -> list[int]:
        """Versions of a role that are here, the oldest first."""
        return self._all().get(role, [])

    def roles(self) -> list[str]:
        """Roles that are here: root, targets, then the models' publishers."""
        found = self._all()
        return [
            *(role for role in OFFLINE if role in found),
            *sorted(role for role in found if model_of(role) is not None),
        ]

    def read(self, role: str, version: int) -> bytes:
        """A file's bytes; raises UntrustedError when it cannot be read."""
        try:
            return (self.path / file_name(role, version)).read_bytes()
        except OSError as error:
            raise UntrustedError(f"{self.path / file_name(role, version)} cannot be read: {error.strerror}") from error

    def newest(self, role: str) -> Metadata[Any]:
        """The newest file of a role, whole or a draft.

        Raises:
            UntrustedError: there is none, or it is damaged.
        """
        versions = self.versions(role)
        if not versions:
            raise UntrustedError(
                f"there is no {role} in {self.path}",
                "model-export keys pull fetches it from the hub" if role != ROOT else _NO_ROOT,
            )
        data = self.read(role, versions[-1])
        with untrusted(f"{self.path / file_name(role, versions[-1])}: "):
            return _read(role, data)

    def root(self) -> Metadata[Root]:
        """The newest root that is whole: each version is checked by the one before, from the oldest that is here.

        Raises:
            UntrustedError: there is none, or one is not signed as it has to be.
        """
        versions = self.versions(ROOT)
        if not versions:
            raise UntrustedError(f"there is no root in {self.path}", _NO_ROOT)
        with untrusted():
            root = checking.pinned_root(self.read(ROOT, versions[0]))
            for version in versions[1:]:
                data = self.read(ROOT, version)
                if self._missing_of_root(checking.read_root(data)) and version == versions[-1]:
                    break  # a draft
                root = checking.next_root(root, data)
        return root

    def delegator(self, role: str) -> Root | Targets:
        """Who says which keys a role has: the newest root or targets that are here, be they drafts."""
        found: Root | Targets = self.newest(ROOT if role in TOP_LEVEL else TARGETS).signed
        return found

    def state(self, role: str) -> RoleState:
        """How far the newest file of a role is."""
        metadata, names = self.newest(role), self.names()
        with untrusted():
            found = checking.progress(self.delegator(role), role, metadata)
            signed, unsigned, missing = dict(found.signed), dict(found.unsigned), found.missing
            if role == ROOT and (before := self._root_before(metadata)) is not None:
                earlier = checking.progress(before.signed, ROOT, metadata)
                signed, unsigned = signed | earlier.signed, unsigned | earlier.unsigned
                missing = max(missing, earlier.missing)
        return RoleState(
            role,
            metadata.signed.version,
            metadata.signed.expires,
            found.threshold,
            tuple(sorted(called(keyid, names) for keyid in signed)),
            tuple(sorted(called(keyid, names) for keyid in unsigned)),
            missing,
        )

    def signers(self) -> dict[str, list[str]]:
        """Role → the keys that may sign it, of every role that the newest root and targets name."""
        names, found = self.names(), {}
        with untrusted():
            for parent in OFFLINE:
                delegator = self.newest(parent).signed
                roles = TOP_LEVEL if parent == ROOT else sorted(repository.delegated(delegator))
                for role in roles:
                    keys = repository.keys_of(delegator, role)[0]
                    found[role] = sorted(called(key.keyid, names) for key in keys)
        return found

    def releases(self) -> dict[str, str]:
        """Path → digest of every release that the newest files of publishers name, the newest first."""
        found = {}
        for role in self.roles():
            if model_of(role) is not None:
                targets = self.newest(role).signed.targets
                for path in sorted(targets, key=lambda path: parse_release(path).order, reverse=True):
                    found[path] = f"sha256:{targets[path].hashes['sha256']}"
        return found

    def next_draft(self, role: str, now: datetime) -> Metadata[Any]:
        """What a change is made on: the draft that is here, without its signatures, or else the next version."""
        metadata = self.newest(role)
        if self.is_draft(role):
            fresh = repository.draft(metadata, role, now=now)
            fresh.signed.version = metadata.signed.version
            return fresh
        return repository.draft(metadata, role, now=now)

    def is_draft(self, role: str) -> bool:
        """Whether the newest file of a role waits for signatures, and no hub has it."""
        state = self.state(role)
        return state.missing > 0 and state.version > self.taken().get(role, 0)

    def taken(self) -> dict[str, int]:
        """Role → newest version that a hub has; raises UntrustedError for a damaged file."""
        path = self.path / TAKEN
        try:
            return {check_role(role): int(version) for role, version in json.loads(path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UntrustedError(
                f"{path} cannot be read: {error}", "remove it: model-export keys pull knows"
            ) from error

    def note_taken(self, versions: Mapping[str, int]) -> None:
        """Remember which versions a hub has."""
        self._write(TAKEN, json.dumps({**self.taken(), **versions}, indent=1).encode())

    def sign(self, signers: list[Signer]) -> list[RoleState]:
        """Add signatures to every draft that one of the keys may sign.

        Raises:
            RequestError: nothing here waits for one of the keys.
        """
        changed = []
        for role in self.roles():
            metadata, keyids = self.newest(role), {key.keyid for key in self.signing_keys(role)}
            fitting = [each for each in signers if each.public_key.keyid in keyids - set(metadata.signatures)]
            if fitting and self.is_draft(role):
                with asked():
                    repository.sign(metadata, *fitting)
                self.write(role, metadata)
                changed.append(self.state(role))
        if not changed:
            raise RequestError(
                f"nothing in {self.path} waits for a signature of this key",
                "model-export keys show tells who has signed",
            )
        return changed

    def signing_keys(self, role: str) -> list[Key]:
        """The keys whose signatures count for the newest file of a role."""
        with untrusted():
            found = repository.keys_of(self.delegator(role), role)[0]
            if role == ROOT and (before := self._root_before(self.newest(ROOT))) is not None:
                found += repository.keys_of(before.signed, ROOT)[0]
        return found

    def write(self, role: str, metadata: Metadata[Any]) -> None:
        """Write a file, whole or not at all; a draft of the same version is replaced.

        Raises:
            RequestError: nobody would take it.
            DestinationError: it cannot be written.
        """
        data = metadata.to_bytes()
        with asked():
            _read(role, data)
        self.write_bytes(role, metadata.signed.version, data)

    def write_bytes(self, role: str, version: int, data: bytes) -> None:
        """Write a file as it was signed elsewhere; raises DestinationError."""
        self._write(file_name(role, version), data)

    def _write(self, name: str, data: bytes) -> None:
        place = self.path / name
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(place)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise DestinationError(f"{place} cannot be written: {error.strerror}") from error

    def remember(self, keys: list[PublicKey]) -> None:
        """Keep public keys, so that people see names instead of ids."""
        known = self.names()
        for key in {key.keyid: key for key in keys}.values():
            if key.keyid not in known:
                (self.path / KEYS).mkdir(parents=True, exist_ok=True)
                write_public(self.path / KEYS / f"{key.name}-{key.keyid[:8]}{PUBLIC}", key)

    def names(self) -> Mapping[str, str]:
        """Key id → name, of the public keys that are here."""
        found = [read_public(path) for path in sorted((self.path / KEYS).glob(f"*{PUBLIC}"))]
        return {public.keyid: public.name for public in found}

    def keyid(self, key: str) -> str:
        """The id of a key that a person names: by a file, its name here, or the first 8 or more digits of its id.

        Raises:
            RequestError: no key, or several.
        """
        if Path(key).is_file():
            return read_public(Path(key)).keyid
        names = self.names()
        delegators = [self.newest(role).signed for role in OFFLINE]
        ids = set(names) | set(delegators[0].keys) | set(delegators[1].delegations.keys)
        found = {keyid for keyid in ids if names.get(keyid) == key or (len(key) >= 8 and keyid.startswith(key))}
        if len(found) != 1:
            raise RequestError(
                f"{key} is {'several keys' if found else 'no key'} of this fleet", "model-export keys show lists them"
            )
        return found.pop()

    def _root_before(self, root: Metadata[Root]) -> Metadata[Root] | None:
        version = root.signed.version - 1
        return checking.read_root(self.read(ROOT, version)) if version in self.versions(ROOT) else None

    def _missing_of_root(self, root: Metadata[Root]) -> int:
        before = self._root_before(root)
        own = checking.progress(root.signed, ROOT, root).missing
        return max(own, checking.progress(before.signed, ROOT, root).missing if before else 0)

    def _all(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for path in self.path.glob("*.json"):
            try:
                role, version = parse_file(path.name)
            except ProtocolError:
                continue
            if version is not None:
                found.setdefault(role, []).append(version)
        return {role: sorted(versions) for role, versions in found.items()}


_NO_ROOT = "copy a root.json of your fleet there as 1.root.json, from somebody whom you trust"


def _read(role: str, data: bytes) -> Metadata[Any]:
    return checking.read_root(data) if role == ROOT else checking.read_targets(data, role)


def called(keyid: str, names: Mapping[str, str]) -> str:
    """A key as people see it: its name, which anybody can have written, and enough of its id to compare."""
    return f"{names[keyid]} {keyid[:16]}" if keyid in names else keyid[:16]


@contextmanager
def untrusted(where: str = "") -> Iterator[None]:
    """What the library refuses of metadata becomes this tool's error."""
    with _translated(UntrustedError, where):
        yield


@contextmanager
def asked(hint: str = "") -> Iterator[None]:
    """What the library refuses of a change becomes an error of the person who asked for it."""
    with _translated(RequestError, "", hint):
        yield


@contextmanager
def _translated(kind: type[ExportError], where: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except (TrustError, ProtocolError) as error:
        raise kind(f"{where}{error}", hint) from error
