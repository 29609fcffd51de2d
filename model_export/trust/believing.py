"""Whose word counts about how a release was made: keys that a person names, or those that the fleet's root leads to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from edgeloop.trust import checking, repository
from edgeloop.trust.names import RETRAINED, ROOT, TARGETS, release_role
from model_export.errors import RequestError, UnprovenError
from model_export.hub import Hub
from model_export.reading.audited import open_audited
from model_export.trust import provenance, syncing
from model_export.trust.folder import TrustFolder, untrusted
from model_export.trust.key_files import read_public
from model_export.trust.provenance import Documents


@dataclass(frozen=True)
class Subject:
    """The release that somebody asks about.

    Attributes:
        digest: of the release.
        model: its name, which says who may publish it.
        retrained: whether a hub made it, and so its trainer's key counts.
        documents: what is known of how it was made.
    """

    digest: str
    model: str
    retrained: bool
    documents: Documents


def subject(place: str, hub: Hub | None) -> Subject:
    """What is asked about: a package's folder, or the digest of a release of the hub.

    Raises:
        UnprovenError: there is no provenance of it, beside the folder or at the hub.
        InvalidPackageError: the package failed its audit.
    """
    if place.startswith("sha256:"):
        if hub is None:
            raise RequestError("a digest alone says not where its release is", "--hub URL")
        found = hub.ask("GET", f"/api/v1/releases/{place}")
        return Subject(place, str(found["name"]), found["source"] == "retrained", _from_hub(hub, place))
    package = open_audited(Path(place))
    documents = provenance.find(package.root)
    if documents is None and hub is None:
        raise UnprovenError(f"there is no provenance beside {place}", "model-export build writes it; --hub may have it")
    source: dict[str, Any] = dict(package.meta.lineage.get("source") or {})
    return Subject(
        package.digest,
        package.name,
        source.get("kind") == "retrained",
        documents or _from_hub(hub, package.digest),  # type: ignore[arg-type]  # one of both is there
    )


def keys(found: Subject, files: Sequence[Path], trust: Path | None, hub: Hub | None) -> list[Key]:
    """The keys that are believed: of the files, and those that the root in a folder leads to.

    Args:
        found: whose provenance it is.
        files: public keys.
        trust: folder with the fleet's root; None to believe the files alone.
        hub: to bring what is newer than the folder; None to go by what is in it.

    Raises:
        KeyFileError: a file holds no public key.
        UntrustedError: metadata are not signed as the folder's root says, or have expired.
    """
    believed = [read_public(path).key for path in files]
    if trust is None:
        return believed
    folder, now = TrustFolder(trust), datetime.now(UTC)
    if hub is not None:
        chain = syncing.chain(hub, folder, syncing.state_of(hub), now)
    else:
        root, versions = folder.root(), folder.versions(TARGETS)
        if not versions:
            raise RequestError(f"there is no targets in {trust}", "model-export keys pull fetches it, or give --hub")
        with untrusted():
            data = folder.read(ROOT, root.signed.version)
            chain = checking.verify_chain(data, (), folder.read(TARGETS, versions[-1]), {}, now=now)
    role = RETRAINED if found.retrained else release_role(found.model)
    if role in repository.delegated(chain.targets.signed):
        believed += repository.keys_of(chain.targets.signed, role)[0]
    return believed


def _from_hub(hub: Hub, digest: str) -> Documents:
    bill, said = (hub.fetch(f"/api/v1/releases/{digest}/attestations/{kind}") for kind in ("sbom", "provenance"))
    if bill is None or said is None:
        raise UnprovenError(f"{hub.address} has no provenance of {digest}", "publish it again from where it was built")
    return Documents(bill, said)
