"""People who sign for a real hub: their keys, and what they send."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tuf.api.metadata import Metadata

from edgeloop.package import Package
from edgeloop.trust import keys, names, repository
from edgeloop.trust.names import ROOT, TARGETS, release_role
from edgeloop.trust.state import TrustState
from tests.doubles.secure_fleet import SecureFleet


class People:
    """The holders of a fleet's offline keys; `fleet` has their keys, and the newest of what they signed.

    Args:
        hub: what the hub's ``GET /api/v1/trust`` answers.
        now: unix seconds of what they sign.
        models: a publisher for each.
    """

    def __init__(self, hub: Mapping[str, Any], now: float, *models: str) -> None:
        self.fleet = SecureFleet(now=datetime.fromtimestamp(now, UTC))
        public = TrustState.from_document(hub).online
        top = {role: [key] for role, key in public.items()}
        top |= {ROOT: [self.fleet.root_key.public_key], TARGETS: [self.fleet.targets_key.public_key]}
        self.fleet.put(ROOT, repository.new_root(top, now=self.fleet.now))
        targets = repository.new_targets(public, now=self.fleet.now)
        for model in models:
            self.fleet.publishers[model] = keys.generate()
            repository.allow(targets.signed, model, [self.fleet.publishers[model].public_key])
        self.fleet.put(TARGETS, targets)

    def file(self, role: str) -> bytes:
        """The newest that they signed of a role."""
        return self.fleet.files[names.file_name(role, self.fleet.newest[role].signed.version)]

    def sign(self, role: str, metadata: Metadata[Any]) -> bytes:
        """Sign the next version of a role."""
        self.fleet.put(role, metadata)
        return self.file(role)

    def release(self, package: Package, *named: str) -> tuple[str, bytes]:
        """Sign a package as its publisher; the role and its file."""
        model = package.name
        self.fleet.release(model, package.index.digest, len(package.index.to_bytes()), *named)
        return release_role(model), self.file(release_role(model))
