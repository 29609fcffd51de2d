"""A fleet that signs, without a hub: people's keys and a hub's in memory, and a repository of signed metadata.

The keys are as in earnest (ed25519), and unencrypted: reading an encrypted file takes 50 ms on purpose.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgeloop.package import Index, IndexEntry
from edgeloop.protocol import ChannelDocument, ReleaseRef, SignedChannel
from edgeloop.trust import keys, names, repository
from edgeloop.trust.names import CHANNELS, RETRAINED, ROOT, SNAPSHOT, TARGETS, TIMESTAMP


@dataclass
class SecureFleet:
    """People, publishers and a hub's signing, in one object; each role's newest metadata in `files`.

    Attributes:
        root_key, targets_key: what people keep offline.
        online: the hub's keys by role.
        publishers: model → key of its publisher.
        now: the time of everything that is signed.
        files: file name → bytes, as ``GET /tuf/<file>`` gives them.
    """

    root_key: CryptoSigner = field(default_factory=keys.generate)
    targets_key: CryptoSigner = field(default_factory=keys.generate)
    online: dict[str, CryptoSigner] = field(default_factory=lambda: {role: keys.generate() for role in names.ONLINE})
    publishers: dict[str, CryptoSigner] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    files: dict[str, bytes] = field(default_factory=dict)
    newest: dict[str, Metadata] = field(default_factory=dict)

    @classmethod
    def make(cls, *models: str) -> SecureFleet:
        """A fleet with a publisher for each model, and nothing released."""
        fleet = cls()
        public = {role: [key.public_key] for role, key in fleet.online.items()}
        public |= {ROOT: [fleet.root_key.public_key], TARGETS: [fleet.targets_key.public_key]}
        fleet.put(ROOT, repository.new_root(public, now=fleet.now))
        targets = repository.new_targets({role: key[0] for role, key in public.items()}, now=fleet.now)
        for model in models:
            fleet.publishers[model] = keys.generate()
            repository.allow(targets.signed, model, [fleet.publishers[model].public_key])
        fleet.put(TARGETS, targets)
        for role in (RETRAINED, CHANNELS):
            fleet.put(role, repository.new_role(role, now=fleet.now))
        fleet.refresh()
        return fleet

    @property
    def root(self) -> Metadata[Root]:
        return self.newest[ROOT]

    @property
    def targets(self) -> Metadata[Targets]:
        return self.newest[TARGETS]

    @property
    def pinned(self) -> bytes:
        """The first root: what a device gets when it enrols."""
        return self.files["1.root.json"]

    def signer(self, role: str) -> CryptoSigner:
        """The key that signs a role."""
        if role in (ROOT, TARGETS):
            return self.root_key if role == ROOT else self.targets_key
        return self.online[role] if role in self.online else self.publishers[names.model_of(role) or ""]

    def put(self, role: str, metadata: Metadata, *signers: CryptoSigner) -> None:
        """Sign a draft, by default with the role's key, and make it the newest version."""
        repository.sign(metadata, *(signers or (self.signer(role),)))
        self.newest[role] = metadata
        self.files[names.file_name(role, metadata.signed.version)] = metadata.to_bytes()

    def draft(self, role: str) -> Metadata:
        """The next version of a role, or its first."""
        if role in self.newest:
            return repository.draft(self.newest[role], role, now=self.now)
        return repository.new_role(role, now=self.now)

    def release(self, model: str, digest: str, length: int, *named: str) -> names.ReleasePath:
        """Publish a release as its publisher; not refreshed."""
        role = names.release_role(model)
        draft = self.draft(role)
        path = repository.add_release(draft.signed, model, digest, length)
        repository.prune(draft.signed, named, repository.KEPT[names.RELEASES])
        self.put(role, draft)
        return path

    def retrain(self, base: names.ReleasePath, digest: str, length: int) -> names.ReleasePath:
        """Sign a retrained release as the hub; not refreshed."""
        draft = self.draft(RETRAINED)
        path = repository.add_retrained(draft.signed, base, digest, length)
        self.put(RETRAINED, draft)
        return path

    def refresh(self) -> None:
        """Sign a new snapshot and timestamp of everything."""
        changed = {
            role: self.files[names.file_name(role, metadata.signed.version)]
            for role, metadata in self.newest.items()
            if role not in (ROOT, SNAPSHOT, TIMESTAMP)
        }
        before: Metadata[Snapshot] | None = self.newest.get(SNAPSHOT)
        self.put(SNAPSHOT, repository.new_snapshot(before, changed, now=self.now))
        snapshot = self.files[names.file_name(SNAPSHOT, self.newest[SNAPSHOT].signed.version)]
        earlier: Metadata[Timestamp] | None = self.newest.get(TIMESTAMP)
        self.put(TIMESTAMP, repository.new_timestamp(earlier, snapshot, now=self.now))

    def channel(self, document: ChannelDocument) -> SignedChannel:
        """Sign a channel's document as the hub, and pack what a device needs to verify it."""
        content = document.to_bytes()
        draft = self.draft(CHANNELS)
        repository.set_channel(draft.signed, document.channel, content)
        self.put(CHANNELS, draft)
        self.refresh()
        return SignedChannel(content, self.bundle())

    def bundle(self) -> dict[str, bytes]:
        """File name → bytes of every role's newest metadata, and of every root after the first."""
        files = {
            names.file_name(role, metadata.signed.version) for role, metadata in self.newest.items() if role != ROOT
        }
        files |= {names.file_name(ROOT, version) for version in range(2, self.root.signed.version + 1)}
        return {name: self.files[name] for name in sorted(files)}

    def write_key(self, folder: Path, name: str, signer: CryptoSigner) -> Path:
        """A key as the file that ``model-export --key`` reads."""
        path = folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(keys.to_pem(signer, None))
        return path


@dataclass(frozen=True)
class Named:
    """As much of a package as is signed: a name, and an index that any text gives."""

    text: str
    name: str = "digits"

    @property
    def index(self) -> Index:
        return Index.of([IndexEntry("manifest.json", hashlib.sha256(self.text.encode()).hexdigest(), 1)])

    @property
    def digest(self) -> str:
        return self.index.digest


def reference(path: names.ReleasePath, digest: str, length: int, version: str = "1.0.0") -> ReleaseRef:
    """A channel document's reference to a signed release."""
    return ReleaseRef(digest, path.model, version, length, str(path))
